//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// The ends are the processes of this program in the client's and the server's namespace.
type ends struct {
	*lab
	origin, load *process

	tasks   io.WriteCloser
	encoder *json.Encoder
	answers chan answer // closed when the load generator says nothing more
}

func (l *lab) startEnds() (*ends, error) {
	e := &ends{lab: l}
	return e, errors.Join(e.startOrigin(), e.startLoad())
}

// startOrigin starts the origin, instead of the one before, and returns when it listens.
func (e *ends) startOrigin() error {
	if e.origin != nil {
		e.origin.kill()
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	command := e.command(e.server, e.Dir, self)
	command.Env = append(command.Env, roleVariable+"=origin", certVariable+"="+e.Cert, keyVariable+"="+e.Key)
	if e.origin, err = e.start(filepath.Join(e.Dir, "origin.log"), command); err != nil {
		return err
	}
	if err := e.origin.Await("listening"); err != nil {
		return fmt.Errorf("the FTP server: %w", err)
	}
	return nil
}

// startLoad starts the load generator, instead of the one before.
func (e *ends) startLoad() error {
	if e.load != nil {
		e.load.kill()
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	command := e.command(e.client, e.Dir, self)
	command.Env = append(command.Env, roleVariable+"=load")
	if e.tasks, err = command.StdinPipe(); err != nil {
		return err
	}
	said, says, err := os.Pipe()
	if err != nil {
		return err
	}
	defer says.Close() // ours
	command.Stdout = says
	if e.load, err = e.start(filepath.Join(e.Dir, "load.log"), command); err != nil {
		said.Close()
		return err
	}
	e.encoder, e.answers = json.NewEncoder(e.tasks), make(chan answer)
	go hear(said, e.answers)
	return nil
}

func hear(said io.ReadCloser, answers chan<- answer) {
	defer said.Close()
	defer close(answers)
	for d := json.NewDecoder(said); ; {
		var a answer
		if d.Decode(&a) != nil {
			return
		}
		answers <- a
	}
}

// errLost means that the load generator is not there any more, and neither are its sessions; there is another.
var errLost = errors.New("the load generator was lost")

// do has the load generator do a task.
func (e *ends) do(t task) (answer, error) {
	const longest = 5 * time.Minute // for ten thousand logins at the slowest proxy
	if err := e.encoder.Encode(t); err != nil {
		return answer{}, e.lost(err)
	}
	select {
	case a, ok := <-e.answers:
		if !ok {
			return answer{}, e.lost(errors.New(e.load.lastWords()))
		}
		if a.Error != "" {
			return answer{}, errors.New(a.Error)
		}
		return a, nil
	case <-time.After(longest):
		return answer{}, e.lost(fmt.Errorf("no answer in %v", longest))
	case <-e.ctx.Done():
		return answer{}, e.ctx.Err()
	}
}

func (e *ends) lost(why error) error {
	if e.ctx.Err() != nil {
		return e.ctx.Err()
	}
	return errors.Join(fmt.Errorf("%w: %w", errLost, why), e.startLoad())
}

func (e *ends) pids() []int { return []int{e.origin.Pid, e.load.Pid} }
