package forward

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAStopIsNotHeldByAPipeThatNobodyReads(t *testing.T) {
	reader, pipe := io.Pipe()
	w := newPatientWriter(pipe)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, w.write(ctx, []byte("one\n")), context.Canceled)
	require.ErrorIs(t, w.write(ctx, []byte("two\n")), context.Canceled, "the first write is still under way")

	var got bytes.Buffer
	read := make(chan error, 1)
	go func() {
		_, err := io.Copy(&got, reader)
		read <- err
	}()
	require.NoError(t, w.write(context.Background(), []byte("three\n")))
	require.NoError(t, pipe.Close())
	require.NoError(t, <-read)
	require.Equal(t, "one\nthree\n", got.String(), "what was never begun is not written, and nothing is mixed")
}

func TestAnErrorOfStandardOutputIsReported(t *testing.T) {
	reader, pipe := io.Pipe()
	broken := errors.New("gone")
	require.NoError(t, reader.CloseWithError(broken))
	require.ErrorIs(t, newPatientWriter(pipe).write(context.Background(), []byte("x\n")), broken)
}
