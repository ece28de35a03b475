package pgtest

import (
	"errors"
	"fmt"
)

// Run starts a server for a program that is no test. The caller calls Remove; a server whose
// program was killed is removed too.
func Run(o Options) (*Server, error) {
	programs := findPrograms()
	if programs == "" {
		return nil, errors.New("PostgreSQL is not installed: sudo apt-get install postgresql")
	}
	return start(programs, o)
}

// Remove stops a server of Run and removes its directory.
func (s *Server) Remove() { s.remove() }

// Owned makes a database and a role that owns it, in a server of Run.
func (s *Server) Owned() (Database, error) {
	name := s.name()
	err := s.exec(fmt.Sprintf("create role %s login", name))
	if err == nil {
		err = s.exec(fmt.Sprintf("create database %[1]s owner %[1]s", name))
	}
	return Database{server: s, role: name, name: name}, err
}

// Crash ends a server of Run without order, and starts it again after a while: by an immediate
// shutdown, or as kill -9 does. pause runs while the server is away.
func (s *Server) Crash(kill bool, pause func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	signal := "QUIT"
	if kill {
		signal = "KILL"
	}
	s.running = false
	s.closeAdmins()
	if err := s.watcher.stop(signal); err != nil {
		return err
	}
	pause()
	return s.launch()
}
