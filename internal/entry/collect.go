package entry

import (
	"os"
	"runtime"
	"runtime/debug"
)

// gcPercent lets the heap grow to three times what is used before the garbage collector runs, unless GOGC says otherwise. A
// large model is looked through each time: with a million extensions a lookup had 0.89 to 0.93 of the rate that it has with a
// thousand at Go's 100, and has 0.91 to 0.93 at this, for 1.35 GiB of memory where it was 0.9.
const gcPercent = 200

// ballastBytes of memory that nobody touches, and that therefore take none, count for the garbage collector as if they were
// used. With only a small model it would run dozens of times a second otherwise. More would leave the processor's cache.
const ballastBytes = 32 << 20

// CollectRarely makes the garbage collector of a process that answers lookups run less often, until the function is called that it
// returns.
func CollectRarely() (release func()) {
	if os.Getenv("GOGC") == "" { // which Go has read, and from nowhere else
		debug.SetGCPercent(gcPercent)
	}
	ballast := make([]byte, ballastBytes)
	return func() { runtime.KeepAlive(ballast) }
}
