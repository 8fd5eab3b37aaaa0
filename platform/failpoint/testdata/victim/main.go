// Command victim comes by a failpoint three times and says so.
package main

import (
	"fmt"

	"github.com/banyan-shop/banyan/platform/failpoint"
)

func main() {
	for i := range 3 {
		fmt.Println("before", i+1)
		failpoint.Hit("victim.loop.again")
	}
	fmt.Println("end")
}
