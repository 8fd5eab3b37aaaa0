// Package failpoint names the places where a crash is most telling. Hit("events.relay.before-publish") does nothing in an
// ordinary build. Built with the tag failpoints, a process whose SHOP_FAILPOINT is that name kills itself there with SIGKILL,
// as a power cut would; "name:3" waits for the third time it comes by. It does not inject errors or delays.
//
// A name is package.place.moment and is written as a literal at one place only, so that grep lists them all.
package failpoint
