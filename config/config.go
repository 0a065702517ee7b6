// Package config reads auditrelay's one YAML file and says everything that is wrong with it at once.
//
// The rules:
//
//   - The file is at most 1 MiB of UTF-8 and holds one YAML document of at most 100,000 nodes, 64 levels deep, with
//     aliases counted as often as they are used. Merge keys ("<<") and tags ("!x") are refused.
//   - Every problem has file, line, column and the dotted path of the key, and its text ends with what to change.
//     Unknown keys, types and words name the nearest valid one. A second use of a key is a problem. At most 100
//     problems are kept.
//   - collect and forward are maps of id to a section with a type. An id names files, metrics and cursors, so it is
//     [a-z0-9][a-z0-9_-]* of at most 64 bytes. A section's common keys are those of [Collector] and [Destination]; all
//     others belong to the kind of that type, whose settings struct the caller gives in [Kinds].
//   - A key without a value is a problem; absent keys keep their defaults.
//   - Text is not guessed at: a number where text is wanted needs quotes, a size or duration needs its unit.
//   - ${env:NAME}, ${file:/path} and ${cred:name} stand for a variable, a file's content and a systemd credential (a
//     file in $CREDENTIALS_DIRECTORY) inside any value. They are put in after the YAML is parsed, so that a value
//     cannot add keys. "$${" writes a plain "${". One line break at the end of a file is taken off. What came in this
//     way is in no message. A [Secret] from a file that group or others may open, or from a credential that others may
//     open, is a problem.
//
// Settings structs are plain structs. Their tags:
//
//	yaml:"key"          the key; "-" leaves a field out; an embedded struct without a tag adds its keys to the outer ones
//	required:"true"     the key must be there and not empty
//	oneof:"a b"         the words allowed, also for the elements of a list
//	schemes:"udp tcp"   the schemes allowed in a URL, also for the elements of a list
//	min:"1s" max:"1h"   bounds of a number, size or duration; of the length of a text, list or map
//	example:"…"         the value that a message shows for a required key that is missing
//	doc:"…"             one sentence for the reference
//	default:"…"         what the reference shows as default where the struct cannot say it
//
// Field types: string, bool, the integer types, [Bytes], [Duration], [Location], [URL], [Secret], any other type with
// UnmarshalText, structs, and slices, pointers and map[string]T of these. A struct that is a [Validator] checks itself
// after it is filled. The YAML library stays behind this package.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"gopkg.in/yaml.v3"
)

// version is the only format of the file that this program reads.
const version = 1

// Config is a whole configuration file, checked and with its defaults filled in. It is not changed after it was read.
type Config struct {
	Version   int           `yaml:"version" required:"true" example:"1" doc:"Format of this file, always 1."`
	Relay     Relay         `yaml:"relay" doc:"This relay itself."`
	DataDir   string        `yaml:"data_dir" min:"1" doc:"Directory of the queue, cursors and dead letters."`
	Collect   []Collector   `yaml:"collect" required:"true" doc:"Where records come from: id to section; sorted by id."`
	Normalize Normalize     `yaml:"normalize" doc:"How records are understood."`
	Queue     Queue         `yaml:"queue" doc:"The queue on disk between collectors and destinations."`
	Forward   []Destination `yaml:"forward" required:"true" doc:"Where events go: id to section; sorted by id."`
	Admin     Admin         `yaml:"admin" doc:"How commands reach a running daemon."`
}

// Relay names this relay and bounds its memory.
type Relay struct {
	ID          string `yaml:"id" min:"1" max:"64" default:"the host name" doc:"Name of this relay in every event."`
	MemoryLimit Bytes  `yaml:"memory_limit" min:"32MiB" doc:"Soft limit of the process's memory."`
}

// Validate checks the characters of the id.
func (r *Relay) Validate() []Invalid {
	for _, c := range []byte(r.ID) {
		if !isAlnum(c) && c != '.' && c != '-' && c != '_' {
			return []Invalid{{Key: "id", Message: fmt.Sprintf(
				"%s has a character that a relay's id cannot have: use letters, digits, \".\", \"-\" and \"_\"", quote(r.ID))}}
		}
	}
	return nil
}

// Collector is one section under collect: its common keys and the settings of its kind.
type Collector struct {
	ID       string   `yaml:"-"`
	Type     string   `yaml:"type" required:"true" doc:"Kind of collector."`
	Product  string   `yaml:"product" min:"1" default:"found out from the records" doc:"Catalogue to read them with."`
	Timezone Location `yaml:"timezone" default:"the machine's local zone" doc:"Zone of times that carry none."`
	Settings any      `yaml:"-"` // the pointer that Kind.Settings made, filled; nil for a kind without settings
	Line     int      `yaml:"-"` // of the id, from 1
}

// Destination is one section under forward: its common keys and the settings of its kind.
type Destination struct {
	ID       string `yaml:"-"`
	Type     string `yaml:"type" required:"true" doc:"Kind of destination."`
	Format   string `yaml:"format" oneof:"cef json" doc:"Format of the events: cef or json."`
	StartAt  string `yaml:"start_at" oneof:"now oldest" doc:"Where a destination that is new begins: now or oldest."`
	Settings any    `yaml:"-"` // the pointer that Kind.Settings made, filled; nil for a kind without settings
	Line     int    `yaml:"-"` // of the id, from 1
}

// Normalize says where the site's own catalogues are.
type Normalize struct {
	Catalogs []string `yaml:"catalogs" doc:"Directories with catalogues that add to the built-in ones or replace them."`
}

// Queue bounds the queue on disk.
type Queue struct {
	MaxSize       Bytes    `yaml:"max_size" min:"1MiB" doc:"Disk space that the queue may take."`
	KeepDelivered Duration `yaml:"keep_delivered" doc:"How long delivered events are kept for a replay."`
	WarnAt        Percent  `yaml:"warn_at" doc:"Share of max_size, in events not delivered, from which on health is yellow."`
	WhenFull      string   `yaml:"when_full" oneof:"block shed" doc:"What a full queue does: block sources, or shed what is least severe."`
}

// Admin says where the daemon takes commands.
type Admin struct {
	Socket string `yaml:"socket" min:"1" doc:"Unix socket that takes commands; only the daemon's own user may open it."`
	// SocketGiven says that the file names the socket, so that a daemon that cannot make it must not go on without.
	SocketGiven bool `yaml:"-"`
}

// socketMax is how long the path of a Unix socket may be on Linux: sun_path has 108 bytes with its final zero.
const socketMax = 107

// Validate checks the path.
func (a *Admin) Validate() []Invalid {
	switch {
	case !filepath.IsAbs(a.Socket):
		return []Invalid{{Key: "socket", Message: "is relative: write the path from / on"}}
	case len(a.Socket) > socketMax:
		return []Invalid{{Key: "socket", Message: fmt.Sprintf(
			"is longer than the %d bytes that a socket's path can have: use a shorter one", socketMax)}}
	default:
		return nil
	}
}

// Kind is what this package needs to know of a kind of collector or destination.
type Kind struct {
	Name string // the word after type:
	Doc  string // one sentence for the reference
	// Settings makes a pointer to a new settings struct with its defaults set. Nil, or a nil result, means that the kind
	// has no keys of its own.
	Settings func() any
}

// Kinds are the kinds that a file may use.
type Kinds struct {
	Collect, Forward []Kind
}

// Invalid is one thing that a settings struct finds wrong with itself.
type Invalid struct {
	Key     string // dotted and relative to the struct, as "paths[1]" or "tls.ca_file"; empty for the struct as a whole
	Message string // what is wrong and what to change, lower case
}

// Validator is a settings struct, or a struct inside one, that checks what types and tags cannot say. Validate is
// called once after the struct was filled, also if some of its keys had problems; what it says about those keys is
// left out. Values that came from ${…} are taken out of its messages.
type Validator interface {
	Validate() []Invalid
}

// Load reads the file at path. An error of type *[Error] holds all problems of its content; any other error says why
// the file could not be read and wraps the system's error. Load blocks on the disk only.
func Load(path string, kinds Kinds) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w%s", err, openHint(err))
	}
	defer func() { _ = f.Close() }() // only read from, so closing loses nothing
	// One byte more than allowed is enough for Parse to see that the file is too long.
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data, kinds)
}

func openHint(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ": name the file with --config"
	case errors.Is(err, fs.ErrPermission):
		return ": let the user that runs auditrelay read it"
	default:
		return ""
	}
}

// Parse reads data as Load reads a file; name stands in the problems. The returned configuration does not alias data.
// An error is always a *[Error]. Variables, files and credentials named by ${…} are read from this machine.
func Parse(name string, data []byte, kinds Kinds) (*Config, error) {
	return parse(name, data, kinds, thisMachine())
}

func parse(name string, data []byte, kinds Kinds, env environment) (*Config, error) {
	found := &problems{file: name}
	root := readDocument(data, found)
	if root == nil {
		return nil, found.err()
	}
	d := &decoder{problems: found, kinds: kinds, expander: expander{problems: found, env: env}}
	cfg := d.config(root)
	if err := found.err(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// newConfig returns a configuration with the defaults that need nothing of this machine.
func newConfig() *Config {
	return &Config{
		Relay:   Relay{MemoryLimit: 256 * MiB},
		DataDir: "/var/lib/auditrelay",
		Queue:   Queue{MaxSize: 4 * GiB, KeepDelivered: 24 * hour, WarnAt: 80, WhenFull: "block"},
		Admin:   Admin{Socket: "/run/auditrelay/control.sock"},
	}
}

func newCollector() Collector { return Collector{} }

func newDestination() Destination { return Destination{Format: "cef", StartAt: "now"} }

// config fills a configuration from the document's root mapping. It is only good if no problem was found.
func (d *decoder) config(root *yaml.Node) *Config {
	cfg := newConfig()
	at := place{node: root}
	fields := fieldsOf(cfg)
	d.fill(root, at, fields, true)
	if admin := locate(root, "admin"); admin != nil {
		cfg.Admin.SocketGiven = locate(resolved(admin), "socket") != nil
	}
	if cfg.Version != version && d.clean("version") {
		d.addAt(root, at, "version", fmt.Sprintf(
			"version %d is not known: this program reads version %d", cfg.Version, version))
	}
	if cfg.Relay.ID == "" && d.clean("relay.id") {
		d.hostName(root, at, cfg)
	}
	return cfg
}

// hostName makes the host's name the relay's id, if it is one that could be written in the file.
func (d *decoder) hostName(root *yaml.Node, at place, cfg *Config) {
	name, err := d.env.hostname()
	cfg.Relay.ID = name
	switch {
	case err != nil:
		d.addAt(root, at, "relay.id", fmt.Sprintf("the host name is not known (%v): set relay.id", err))
	case name == "" || len(name) > 64 || len(cfg.Relay.Validate()) > 0:
		d.addAt(root, at, "relay.id", fmt.Sprintf("the host name %s cannot be a relay's id: set relay.id", quote(name)))
	}
}
