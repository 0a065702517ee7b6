package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// maxValueBytes bounds a file or credential, and a value after ${…} was put in.
const maxValueBytes = 64 << 10

// environment is what a configuration may take from the machine; tests give their own.
type environment struct {
	variable func(name string) (string, bool)
	file     func(path string) (data []byte, mode fs.FileMode, err error)
	hostname func() (string, error)
}

func thisMachine() environment {
	return environment{variable: os.LookupEnv, file: readValueFile, hostname: os.Hostname}
}

// readValueFile reads a small regular file. It never waits: a FIFO or a device is refused unread.
func readValueFile(path string) ([]byte, fs.FileMode, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, 0, withoutPath(err)
	}
	defer func() { _ = f.Close() }() // only read from, so closing loses nothing
	st, err := f.Stat()
	if err != nil {
		return nil, 0, withoutPath(err)
	}
	if !st.Mode().IsRegular() {
		return nil, 0, errors.New("it is not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxValueBytes+1))
	if err != nil {
		return nil, 0, withoutPath(err)
	}
	if len(data) > maxValueBytes {
		return nil, 0, fmt.Errorf("it is longer than %v", Bytes(maxValueBytes))
	}
	return data, st.Mode(), nil
}

// withoutPath leaves the operation and path to the message around the error, which names them in the file's own words.
func withoutPath(err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
