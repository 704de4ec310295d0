package proxy

import (
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"ftpalg/dataconn"
)

// splice is a pipe of the kernel's between two connections. Package net would splice as well; but as with swift, its calls are such as the
// runtime hears of, and its monitor thread, which looks every 20 µs then, makes up to a fifth of what moving a file costs.
type splice struct {
	*pipe
	from, to     *net.TCPConn
	source, sink syscall.RawConn
	in, out      move
	held         int // bytes in the pipe
}

// pipe is one that is kept for the next splice.
type pipe struct{ r, w int }

// pipeSize is how much is taken at once, in bytes. It is what the kernel lets everybody have (pipe-max-size); a pipe that gets less
// serves, too.
const pipeSize = 1 << 20

// pipes are those that nobody uses.
var pipes = sync.Pool{New: func() any { return newPipe() }}

// newPipe returns nil if there is none to be had.
func newPipe() *pipe {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil
	}
	unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize)
	p := &pipe{fds[0], fds[1]}
	runtime.SetFinalizer(p, (*pipe).close) // those that the Pool forgets
	return p
}

func (p *pipe) close() {
	unix.Close(p.r)
	unix.Close(p.w)
	runtime.SetFinalizer(p, nil)
}

// Splice implements dataconn.Splicer.
func (n *network) Splice(from, to net.Conn) dataconn.Splice {
	source, ok := from.(*net.TCPConn)
	sink, both := to.(*net.TCPConn)
	if !ok || !both {
		return nil
	}
	s := &splice{from: source, to: sink}
	var err error
	if s.source, err = source.SyscallConn(); err != nil {
		return nil
	}
	if s.sink, err = sink.SyscallConn(); err != nil {
		return nil
	}
	if s.pipe, _ = pipes.Get().(*pipe); s.pipe == nil {
		return nil
	}
	s.in = move{to: s.w, most: pipeSize}
	s.out = move{from: s.r}
	s.in.try, s.out.try = s.in.intoPipe, s.out.outOfPipe
	return s
}

// move is a splice(2) that is under way.
type move struct {
	from, to, most int
	n              int
	errno          syscall.Errno
	try            func(fd uintptr) (done bool) // for RawConn; kept, so that none is made each time
}

func (m *move) intoPipe(fd uintptr) bool {
	m.from = int(fd)
	return m.once()
}

func (m *move) outOfPipe(fd uintptr) bool {
	m.to = int(fd)
	return m.once()
}

// once is not done if it would have to wait.
func (m *move) once() bool {
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(m.from), 0, uintptr(m.to), 0, uintptr(m.most), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if e == unix.EINTR {
			continue
		}
		if m.n, m.errno = int(n), e; e != 0 {
			m.n = 0
		}
		return e != unix.EAGAIN
	}
}

// perform tries a move each time that its socket is ready, until it is done.
func (m *move) perform(when func(func(uintptr) bool) error) (int, error) {
	m.n, m.errno = 0, 0
	if err := when(m.try); err != nil {
		return 0, err
	}
	if m.errno != 0 {
		return 0, os.NewSyscallError("splice", m.errno)
	}
	return m.n, nil
}

// Take implements dataconn.Splice. What was taken before must have been given.
func (s *splice) Take() (int, error) {
	n, err := s.in.perform(s.source.Read)
	if n == 0 && err == nil {
		err = io.EOF
	}
	s.held += n
	return n, err
}

// Give implements dataconn.Splice.
func (s *splice) Give() (int, error) {
	s.out.most = s.held
	n, err := s.out.perform(s.sink.Write)
	s.held -= n
	return n, err
}

// Gather implements dataconn.Splice.
func (s *splice) Gather(bytes int) error { return gather(s.from, bytes) }

// Close implements dataconn.Splice. A pipe with bytes in it is nobody else's.
func (s *splice) Close() {
	if s.held > 0 {
		s.pipe.close()
	} else {
		pipes.Put(s.pipe)
	}
	s.pipe = nil
}
