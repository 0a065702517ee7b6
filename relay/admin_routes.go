package relay

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"time"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/queue"
)

// progressEvery is how often a long answer says how far it is.
const progressEvery = 500 * time.Millisecond

// message is one line of a streamed answer. The last one has a result or an error: without it the answer was cut off.
type message struct {
	// Of an entry: its number, and the event as native JSON or the text in another format.
	Number audit.Number    `json:"number,omitempty"`
	Event  json.RawMessage `json:"event,omitempty"`
	Text   string          `json:"text,omitempty"`
	// Of a progress.
	Done     int64     `json:"done,omitempty"`
	Total    int64     `json:"total,omitempty"`
	Progress *Progress `json:"progress,omitempty"`
	// Of the end.
	Result any    `json:"result,omitempty"`
	Error  string `json:"error,omitempty"`
}

// replayRequest is the body of POST /replay. From and To are as in ParsePlace.
type replayRequest struct {
	From        string `json:"from"`
	To          string `json:"to"`
	Destination string `json:"destination"`
}

// forgetRequest is the body of POST /queue/forget.
type forgetRequest struct {
	Cursor string `json:"cursor"`
}

func (a *admin) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", a.status)
	mux.HandleFunc("GET /queue/ls", a.list)
	mux.HandleFunc("GET /queue/check", a.check)
	mux.HandleFunc("GET /queue/entries", a.entries)
	mux.HandleFunc("POST /queue/forget", a.forget)
	mux.HandleFunc("POST /replay", a.replay)
	return http.MaxBytesHandler(mux, adminBodyBytes)
}

func (a *admin) status(w http.ResponseWriter, _ *http.Request) {
	a.answer(w, http.StatusOK, a.store.relay.Status())
}

func (a *admin) list(w http.ResponseWriter, _ *http.Request) {
	list, err := a.store.List()
	if err != nil {
		a.refuse(w, http.StatusInternalServerError, err)
		return
	}
	a.answer(w, http.StatusOK, list)
}

func (a *admin) forget(w http.ResponseWriter, req *http.Request) {
	var body forgetRequest
	if err := decodeBody(req, &body); err != nil {
		a.refuse(w, http.StatusBadRequest, err)
		return
	}
	switch err := a.store.Forget(body.Cursor); {
	case err == nil:
		a.logger.Warn("a cursor was forgotten on command, its backlog is given up", "cursor", body.Cursor)
		a.answer(w, http.StatusOK, struct{}{})
	case errors.Is(err, fs.ErrNotExist):
		a.refuse(w, http.StatusNotFound, err)
	case errors.Is(err, queue.ErrInUse):
		a.refuse(w, http.StatusConflict, err)
	default:
		a.refuse(w, http.StatusInternalServerError, err)
	}
}

func (a *admin) check(w http.ResponseWriter, req *http.Request) {
	out := newStream(w)
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	last := time.Now()
	result, err := a.store.Check(ctx, func(done, total int64) {
		if time.Since(last) < progressEvery {
			return
		}
		last = time.Now()
		if out.send(message{Done: done, Total: total}) != nil {
			cancel()
		}
	})
	out.end(result, err)
}

func (a *admin) entries(w http.ResponseWriter, req *http.Request) {
	query := req.URL.Query()
	sel, err := SelectionOf(query.Get("from"), query.Get("to"))
	if err != nil {
		a.refuse(w, http.StatusBadRequest, err)
		return
	}
	format := query.Get("format")
	if format == "" {
		format = "json"
	}
	out := newStream(w)
	result, err := a.store.Entries(req.Context(), sel, format, func(e Entry) error {
		if format == "json" {
			return out.sendLater(message{Number: e.Number, Event: e.Line})
		}
		return out.sendLater(message{Number: e.Number, Text: string(e.Line)})
	})
	out.end(result, err)
}

func (a *admin) replay(w http.ResponseWriter, req *http.Request) {
	var body replayRequest
	err := decodeBody(req, &body)
	sel, selErr := SelectionOf(body.From, body.To)
	if err = errors.Join(err, selErr); err != nil {
		a.refuse(w, http.StatusBadRequest, err)
		return
	}
	pass, err := a.store.NewReplay(body.Destination, sel)
	if err != nil {
		a.refuse(w, http.StatusNotFound, err)
		return
	}
	d := a.store.relay.destinationOf(body.Destination)
	if !d.replay.CompareAndSwap(nil, pass) {
		a.refuse(w, http.StatusConflict, ErrReplaying)
		return
	}
	defer d.replay.Store(nil)
	out := newStream(w)
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	a.logger.Info("replay begins on command", "forward", body.Destination, "from", body.From, "to", body.To)
	result, err := pass.RunWatched(ctx, progressEvery, func(p Progress) {
		if out.send(message{Progress: &p}) != nil {
			cancel() // nobody waits for it any more
		}
	})
	ended := a.logger.With("forward", body.Destination, "delivered", result.Delivered, "dead_lettered", result.DeadLettered)
	if err != nil {
		ended.Warn("replay ended before its end", "error", err)
	} else {
		ended.Info("replay ended")
	}
	out.end(result, err)
}

func (r *Relay) destinationOf(id string) *destination {
	for _, d := range r.destinations {
		if d.config.ID == id {
			return d
		}
	}
	return nil
}

// SelectionOf reads the two ends of a selection; see ParsePlace.
func SelectionOf(from, to string) (sel Selection, err error) {
	var errs [2]error
	sel.From, errs[0] = ParsePlace(from)
	sel.To, errs[1] = ParsePlace(to)
	return sel, errors.Join(errs[:]...)
}

// decodeBody reads one JSON object without unknown members. MaxBytesHandler bounds it.
func decodeBody(req *http.Request, into any) error {
	dec := json.NewDecoder(req.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

func (a *admin) refuse(w http.ResponseWriter, code int, err error) {
	a.answer(w, code, message{Error: err.Error()})
}

func (a *admin) answer(w http.ResponseWriter, code int, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(adminWriteTimeout))
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(value); err != nil {
		a.logger.Debug("the answer to a command was not taken", "error", err)
	}
}

// stream writes an answer of many lines. One goroutine uses it.
type stream struct {
	control *http.ResponseController
	encoder *json.Encoder
	pending int
}

// flushEvery is how many messages are written before they are flushed.
const flushEvery = 256

func newStream(w http.ResponseWriter) *stream {
	w.Header().Set("Content-Type", "application/x-ndjson")
	s := &stream{control: http.NewResponseController(w), encoder: json.NewEncoder(w)}
	// The server's limit on reading a request would end the request's context when it strikes during a long answer.
	_ = s.control.SetReadDeadline(time.Time{})
	s.encoder.SetEscapeHTML(false) // an event's bytes stay what they are
	return s
}

// send writes one message at once.
func (s *stream) send(m message) error {
	s.pending = flushEvery
	return s.sendLater(m)
}

// sendLater writes one message with those that follow.
func (s *stream) sendLater(m message) error {
	if s.pending == 0 || s.pending >= flushEvery {
		if err := s.control.SetWriteDeadline(time.Now().Add(adminWriteTimeout)); err != nil {
			return err
		}
	}
	if err := s.encoder.Encode(m); err != nil {
		return err
	}
	if s.pending++; s.pending < flushEvery {
		return nil
	}
	s.pending = 0
	return s.control.Flush()
}

// end writes the last message. A result is sent along with an error where there is one.
func (s *stream) end(result any, err error) {
	m := message{Result: result}
	if err != nil {
		m.Error = err.Error()
	}
	_ = s.send(m) // who is gone need not be told
}
