package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// syncFile makes a file's data durable, and the metadata that is needed to read it:
// fdatasync(2).
func syncFile(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err != syscall.EINTR {
			return err
		}
	}
}

// syncDir makes the names of the database's files durable.
func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	return dir.Sync()
}

// writeZeros writes zeros from one offset to another. Each call to the system writes a small
// buffer many times: the file system sees one large write, and no large buffer takes memory.
func writeZeros(f *os.File, from, to int64) error {
	zeros, list := make([]byte, 64<<10), make([][]byte, 0, maxVectors)
	for from < to {
		list = list[:0]
		for left := to - from; left > 0 && len(list) < maxVectors; left -= int64(len(zeros)) {
			list = append(list, zeros[:min(left, int64(len(zeros)))])
		}
		n, err := unix.Pwritev(int(f.Fd()), list, from)
		if err != nil && err != unix.EINTR {
			return err
		}
		from += int64(max(n, 0))
	}
	return nil
}

// maxVectors is how many buffers a call to pwritev takes at most.
const maxVectors = 1024

// asyncSync syncs a file without blocking a thread. It submits an fdatasync with io_submit(2)
// and waits on an eventfd in the runtime's poller. At thousands of syncs a second that costs
// less than blocking threads, from which the runtime takes the processor every few microseconds.
type asyncSync struct {
	kernel    uintptr // the context of io_setup
	eventFile *os.File
	fd        uint32
	event     uint32
}

// The constants of linux/aio_abi.h.
const (
	cmdFdatasync = 3
	flagEventFD  = 1
)

type ioControl struct {
	_        uint64 // data
	_        uint64 // key, flags of reads and writes
	opcode   uint16
	_        int16 // priority
	fd       uint32
	_        [4]uint64 // buffer, length, offset, reserved
	flags    uint32
	resultFD uint32
}

// errNotSubmitted reports that the kernel refused the submission: nothing was synced, and the
// caller uses a plain sync.
var errNotSubmitted = errors.New("sqlite: the kernel took no asynchronous sync")

type ioEvent struct {
	_   [2]uint64 // data, control
	res int64
	_   int64
}

// newAsyncSync prepares to sync a file. It fails if the kernel does not offer it; plain syncs
// then take its place.
func newAsyncSync(f *os.File) (*asyncSync, error) {
	a := &asyncSync{fd: uint32(f.Fd())}
	event, _, errno := syscall.Syscall(syscall.SYS_EVENTFD2, 0, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		return nil, errno
	}
	a.event = uint32(event)
	a.eventFile = os.NewFile(event, "eventfd")
	if _, _, errno := syscall.Syscall(syscall.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&a.kernel)), 0); errno != 0 {
		return nil, errors.Join(errno, a.eventFile.Close())
	}
	if err := a.sync(); err != nil { // some kernels accept the setup and refuse the sync
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

// sync syncs the file. Only one goroutine may call it at a time.
func (a *asyncSync) sync() error {
	control := &ioControl{opcode: cmdFdatasync, fd: a.fd, flags: flagEventFD, resultFD: a.event}
	list := [1]*ioControl{control}
	if _, _, errno := syscall.Syscall(syscall.SYS_IO_SUBMIT, a.kernel, 1, uintptr(unsafe.Pointer(&list))); errno != 0 {
		return errNotSubmitted
	}
	var count [8]byte
	if _, err := a.eventFile.Read(count[:]); err != nil {
		return err
	}
	var event ioEvent
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_IO_GETEVENTS, a.kernel, 1, 1, uintptr(unsafe.Pointer(&event)), 0, 0)
		if errno == 0 {
			break
		}
		if errno != syscall.EINTR {
			return errno
		}
	}
	if event.res < 0 {
		return syscall.Errno(-event.res)
	}
	return nil
}

func (a *asyncSync) close() error {
	_, _, _ = syscall.Syscall(syscall.SYS_IO_DESTROY, a.kernel, 0, 0)
	return a.eventFile.Close()
}
