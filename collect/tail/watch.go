package tail

import (
	"context"
	"log/slog"
	"time"

	"github.com/fsnotify/fsnotify"
)

// watchesMax bounds the directories that are watched; in the others the poll finds what is new.
const watchesMax = 512

// watch wakes the follower when something happens in a directory. It is a hint and no more: events may be missing
// (network file systems, a queue overflow), or there may be none at all (no inotify instance left), and nothing depends
// on them.
type watch struct {
	woken   chan struct{}
	watcher *fsnotify.Watcher // nil: there are only polls
	ended   chan struct{}
}

// startWatch starts the goroutine that listens for notifications, unless only polls are wanted.
func startWatch(log *slog.Logger, pollOnly bool) *watch {
	w := &watch{woken: make(chan struct{}, 1), ended: make(chan struct{})}
	if pollOnly {
		close(w.ended)
		return w
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		log.Info("no file notifications, polling only", "error", err)
		close(w.ended)
		return w
	}
	w.watcher = watcher
	go w.run()
	return w
}

func (w *watch) run() {
	defer close(w.ended)
	for {
		select {
		case _, ok := <-w.watcher.Events:
			if !ok {
				return
			}
		case _, ok := <-w.watcher.Errors: // an overflow: something did happen
			if !ok {
				return
			}
		}
		select {
		case w.woken <- struct{}{}:
		default:
		}
	}
}

// follow watches these directories, too. A directory that was removed and made again is taken up again.
func (w *watch) follow(directories []string) {
	if w.watcher == nil {
		return
	}
	have := make(map[string]bool)
	for _, dir := range w.watcher.WatchList() {
		have[dir] = true
	}
	for _, dir := range directories {
		if !have[dir] && len(have) < watchesMax && w.watcher.Add(dir) == nil {
			have[dir] = true
		}
	}
}

// wait returns when it is time for the next scan: at next, or when it is woken, but not before soonest, or when ctx
// ends.
func (w *watch) wait(ctx context.Context, next, soonest time.Time) time.Time {
	woken := w.woken
	for {
		timer := time.NewTimer(time.Until(next))
		select {
		case <-woken:
			timer.Stop()
			woken = nil
			if soonest.Before(next) {
				next = soonest
			}
			continue
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		return next
	}
}

func (w *watch) stop() {
	if w.watcher != nil {
		_ = w.watcher.Close() // it was only read from
	}
	<-w.ended
}
