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
