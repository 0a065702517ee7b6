//go:build poison

package audit

// poison overwrites memory that is given back, so that whoever still points into it fails a test.
func poison(p []byte) {
	p = p[:cap(p)]
	for i := range p {
		p[i] = 0xDB
	}
}
