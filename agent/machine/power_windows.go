package machine

import (
	"context"
	"log/slog"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"

	"backstay/agent/conditions"
)

var (
	getSystemPowerStatus = windows.NewLazySystemDLL("kernel32.dll").NewProc("GetSystemPowerStatus")
	coCreateInstance     = windows.NewLazySystemDLL("ole32.dll").NewProc("CoCreateInstance")
)

// watchPower looks: the signals there are go to windows, which a service has none of.
func watchPower(ctx context.Context, _ *slog.Logger, tell func(conditions.Machine)) {
	// COM counts by threads.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cost, done := openCost()
	defer done()
	lookAtPower(ctx, func() conditions.Machine {
		m := conditions.Unknown
		m.OnBattery, m.Percent = power()
		m.Metered = cost()
		return m
	}, tell)
}

// power asks GetSystemPowerStatus.
func power() (onBattery bool, percent int) {
	var s struct { // SYSTEM_POWER_STATUS
		acLine, battery, percent, flag byte
		lifeTime, fullLifeTime         uint32
	}
	if ok, _, _ := getSystemPowerStatus.Call(uintptr(unsafe.Pointer(&s))); ok == 0 {
		return false, -1
	}
	const offline, unknown = 0, 255
	if s.percent == unknown {
		return s.acLine == offline, -1
	}
	return s.acLine == offline, int(s.percent)
}

// NetworkListManager and its INetworkCostManager, which has GetCost after the methods
// of IUnknown.
var (
	clsidNetworkListManager = windows.GUID{Data1: 0xdcb00c01, Data2: 0x570f, Data3: 0x4a9b, Data4: [8]byte{0x8d, 0x69, 0x19, 0x9f, 0xdb, 0xa5, 0x72, 0x3b}}
	iidNetworkCostManager   = windows.GUID{Data1: 0xdcb00008, Data2: 0x570f, Data3: 0x4a9b, Data4: [8]byte{0x8d, 0x69, 0x19, 0x9f, 0xdb, 0xa5, 0x72, 0x3b}}
)

type costManager struct {
	methods *struct{ queryInterface, addRef, release, getCost uintptr }
}

// openCost returns what says whether the network is metered, for this thread, and what
// ends that.
func openCost() (cost func() bool, done func()) {
	unknown := func() bool { return false }
	const multithreaded, allContexts = 0, 23
	if err := windows.CoInitializeEx(0, multithreaded); err != nil {
		return unknown, func() {}
	}
	var m *costManager
	r, _, _ := coCreateInstance.Call(uintptr(unsafe.Pointer(&clsidNetworkListManager)), 0, allContexts,
		uintptr(unsafe.Pointer(&iidNetworkCostManager)), uintptr(unsafe.Pointer(&m)))
	if r != 0 || m == nil {
		return unknown, windows.CoUninitialize
	}
	cost = func() bool {
		var c uint32
		r, _, _ := syscall.SyscallN(m.methods.getCost, uintptr(unsafe.Pointer(m)), uintptr(unsafe.Pointer(&c)), 0)
		const fixed, variable, overLimit, roaming = 0x2, 0x4, 0x10000, 0x40000
		return r == 0 && c&(fixed|variable|overLimit|roaming) != 0
	}
	return cost, func() {
		syscall.SyscallN(m.methods.release, uintptr(unsafe.Pointer(m)))
		windows.CoUninitialize()
	}
}
