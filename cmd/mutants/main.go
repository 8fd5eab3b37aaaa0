// Command mutants breaks the most dangerous guards of the shop, one at a time, and sees that the tests notice. A guard stands
// in a file of its own beside a twin without it, which a build tag puts in its place. It proves that the named tests would
// catch that very mistake, not that they catch all: `go test` alone says whether the shop is right.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// mutant is a guard that is gone with -tags mutant_<name>, and the tests that must go red then.
type mutant struct {
	name, without string
	pkg           string
	tests         []string
}

var mutants = []mutant{
	{"inbox", "the row that remembers a handled event", "./platform/events",
		[]string{"TestARepeatedDeliveryTakesEffectOnce", "TestADeliveryWhoseMarkIsLostTakesEffectOnce"}},
	{"opid", "one operation id for all tries of a step", "./modules/orders", []string{"TestACrashAnywhereIsSurvived"}},
	{"stock", "the condition in the update of stock: it is read, then written", "./modules/catalog", []string{"TestSixtyFourBuyersOfTheLastTen"}},
	{"commit", "looking up a commit without an answer: it counts as no", "./platform/pg", []string{"TestACommitWithoutAnAnswer"}},
	{"fence", "the lease in every write of a checkout", "./modules/orders", []string{"TestAZombieWritesNothing"}},
	{"void", "cancelling the payment for certain before its goods are given away", "./modules/orders", []string{"TestCheckout", "TestPaidButOutOfStock"}},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

// run tries the mutants named, or all, and fails if one survives.
func run(ctx context.Context, names []string, out, progress io.Writer) error {
	var chosen []mutant
	for _, m := range mutants {
		if len(names) == 0 || slices.Contains(names, m.name) {
			chosen = append(chosen, m)
		}
	}
	if len(chosen) == 0 || len(names) > len(chosen) {
		return fmt.Errorf("no such mutant in %v", names)
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "MUTANT\tWITHOUT\tTESTS\tVERDICT\tTOOK")
	var wrong []error
	for _, m := range chosen {
		fmt.Fprintln(progress, m.name, "…")
		began := time.Now()
		verdict, err := m.try(ctx)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", m.name, err))
		}
		fmt.Fprintf(table, "%s\t%s\t%s %s\t%s\t%.0f s\n", m.name, m.without, m.pkg, strings.Join(m.tests, " "), verdict, time.Since(began).Seconds())
	}
	return errors.Join(append(wrong, table.Flush())...)
}

// try runs the tests with the guard, where they must pass, and without it, where one must fail for what it says and not
// because nothing was built.
func (m mutant) try(ctx context.Context) (verdict string, err error) {
	said, err := m.test(ctx)
	if err != nil || bytes.Contains(said, []byte("no tests to run")) {
		return "broken", fmt.Errorf("its tests do not pass with the guard: %w\n%s", err, said)
	}
	said, err = m.test(ctx, "-tags", "mutant_"+m.name)
	switch {
	case err == nil:
		return "SURVIVED", errors.New("no test has noticed")
	case !bytes.Contains(said, []byte("--- FAIL: ")):
		return "broken", fmt.Errorf("its tests did not run: %w\n%s", err, said)
	}
	return "noticed", nil
}

func (m mutant) test(ctx context.Context, flags ...string) ([]byte, error) {
	args := append([]string{"test", "-short", "-count=1", "-failfast", "-run", "^(" + strings.Join(m.tests, "|") + ")$"}, flags...)
	return exec.CommandContext(ctx, "go", append(args, m.pkg)...).CombinedOutput()
}
