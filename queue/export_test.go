package queue

import (
	"encoding/binary"
	"hash/crc32"
	"strings"
)

// NewerVersion returns a file of the queue as a later version might have written it.
func NewerVersion(data []byte, path string) []byte {
	binary.LittleEndian.PutUint16(data[8:], formatVersion+1)
	crc := crc32.Checksum(data[:60], castagnoli)
	if strings.Contains(path, cursorDir) {
		crc = slotCRC(data, int(binary.LittleEndian.Uint16(data[10:])))
	}
	binary.LittleEndian.PutUint32(data[60:], crc)
	return data
}

// FormatVersion is the format of segments that this program writes.
const FormatVersion = formatVersion

// Resealed returns a file of the queue with the CRC that its changed head must have.
func Resealed(data []byte) []byte {
	binary.LittleEndian.PutUint32(data[60:], crc32.Checksum(data[:60], castagnoli))
	return data
}

// LimitRebuild bounds what Open reads of segments to make lost id files again.
func LimitRebuild(opt Options, bytes int64) Options {
	opt.rebuildBytes = bytes
	return opt
}
