package relay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

// ErrNoDaemon says that nobody answers on the control socket.
var ErrNoDaemon = errors.New("no daemon answers")

// messageMax bounds one line of an answer: an event with a record of the largest size, as JSON.
const messageMax = 64 << 20

// Client asks a running daemon over its control socket. Safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client for a socket. It connects to nothing.
func NewClient(socket string) *Client {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	return &Client{socket: socket, http: &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "unix", socket)
			},
			DisableKeepAlives: true, DisableCompression: true,
		},
	}}
}

// Status asks for the status. ErrNoDaemon if nobody answers, as for all methods.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	status := new(Status)
	return status, c.get(ctx, "/status", status)
}

// List asks what the queue directory holds.
func (c *Client) List(ctx context.Context) (*QueueList, error) {
	list := new(QueueList)
	return list, c.get(ctx, "/queue/ls", list)
}

// Forget asks the daemon to delete a cursor.
func (c *Client) Forget(ctx context.Context, cursor string) error {
	res, err := c.do(ctx, http.MethodPost, "/queue/forget", forgetRequest{Cursor: cursor})
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// Check asks the daemon to read everything that is stored; see Store.Check.
func (c *Client) Check(ctx context.Context, progress func(done, total int64)) (*CheckResult, error) {
	result := new(CheckResult)
	return result, c.stream(ctx, http.MethodGet, "/queue/check", nil, result, func(m *clientMessage) error {
		progress(m.Done, m.Total)
		return nil
	})
}

// Entries asks for stored events; see Store.Entries. from and to are as in ParsePlace.
func (c *Client) Entries(ctx context.Context, from, to, format string, yield func(Entry) error) (*Selected, error) {
	query := url.Values{"from": {from}, "to": {to}, "format": {format}}
	result := new(Selected)
	return result, c.stream(ctx, http.MethodGet, "/queue/entries?"+query.Encode(), nil, result, func(m *clientMessage) error {
		line := []byte(m.Event)
		if line == nil {
			line = []byte(m.Text)
		}
		return yield(Entry{Number: m.Number, Line: line})
	})
}

// Replay asks the daemon for a replay and waits for its end. If ctx ends, the daemon stops it.
func (c *Client) Replay(ctx context.Context, destination, from, to string, progress func(Progress)) (*ReplayResult, error) {
	result := new(ReplayResult)
	body := replayRequest{From: from, To: to, Destination: destination}
	return result, c.stream(ctx, http.MethodPost, "/replay", body, result, func(m *clientMessage) error {
		if m.Progress != nil {
			progress(*m.Progress)
		}
		return nil
	})
}

// clientMessage is a message as it comes in.
type clientMessage struct {
	message
	Result json.RawMessage `json:"result"`
}

// askTimeout is how long a daemon may take for an answer that needs no reading of the queue.
const askTimeout = 15 * time.Second

func (c *Client) get(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	res, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // only read from
	if err := json.NewDecoder(io.LimitReader(res.Body, messageMax)).Decode(into); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}

// stream calls yield for each message of an answer but the last, whose result goes to into.
func (c *Client) stream(ctx context.Context, method, path string, body, into any, yield func(*clientMessage) error) error {
	res, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // only read from
	dec := json.NewDecoder(res.Body)
	for {
		var m clientMessage
		if err := dec.Decode(&m); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("the daemon's answer ended too soon: %w", err)
		}
		if m.Result == nil && m.Error == "" {
			if err := yield(&m); err != nil {
				return err
			}
			continue
		}
		if m.Result != nil {
			err = json.Unmarshal(m.Result, into)
		}
		if m.Error != "" {
			err = errors.Join(err, errors.New(m.Error))
		}
		return err
	}
}

// do sends a request. The caller closes the body of an answer.
func (c *Client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://auditrelay"+path, content)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("%w on %s", ErrNoDaemon, c.socket)
	case err != nil:
		return nil, fmt.Errorf("ask the daemon on %s: %w", c.socket, err)
	case res.StatusCode == http.StatusOK:
		return res, nil
	}
	defer func() { _ = res.Body.Close() }() // only read from
	var m clientMessage
	if err := json.NewDecoder(io.LimitReader(res.Body, adminBodyBytes)).Decode(&m); err != nil || m.Error == "" {
		return nil, fmt.Errorf("the daemon answered %s", res.Status)
	}
	return nil, errors.New(m.Error)
}
