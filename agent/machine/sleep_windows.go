package machine

import (
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

var queryUnbiasedInterruptTime = windows.NewLazySystemDLL("kernel32.dll").NewProc("QueryUnbiasedInterruptTime")

func asleep() (time.Duration, bool) {
	var running uint64 // in 100 ns, without sleep
	if ok, _, _ := queryUnbiasedInterruptTime.Call(uintptr(unsafe.Pointer(&running))); ok == 0 {
		return 0, false
	}
	return windows.DurationSinceBoot() - time.Duration(running)*100, true
}
