// Package failpoint names the places where a crash is most telling. Hit("events.relay.before-publish") does nothing in an
// ordinary build. Built with the tag failpoints, a process whose SHOP_FAILPOINT is that name kills itself there with SIGKILL,
// as a power cut would; "name:3" waits for the third time it comes by. "@FILE" is what that file says at each hit, so that a
// process is armed while it runs, and "?" tells stderr of each hit. It does not inject errors or delays.
//
// A name is package.place.moment and is written as a literal at one place only, so that grep lists them all; but for those of
// calls, rpc.module.Method.moment, which platform/rpc composes where Enabled.
package failpoint
