package collect

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDatagramsThatTheKernelHasAreTakenAtTheEnd(t *testing.T) {
	for _, url := range []string{"udp://127.0.0.1:0", "udp://[::1]:0"} {
		for _, taken := range []bool{true, false} {
			t.Run(fmt.Sprint(url, taken), func(t *testing.T) {
				l := listenOn(t, nil, url)
				s := &store{}
				full := make(chan struct{})
				s.gate = func(ctx context.Context, batch int) error {
					if batch == 1 { // no space until the end
						close(full)
						<-ctx.Done()
						return ctx.Err()
					}
					if !taken {
						return errors.New("disk is full")
					}
					return ctx.Err()
				}
				stop := run(t, l, s.put)
				conn := dial(t, l, 0)
				send(t, conn, "<34>0")
				<-full
				const sent = 300
				for i := 1; i < sent; i++ {
					send(t, conn, fmt.Sprintf("<34>%d", i))
				}
				stop()
				in := l.Inputs()[0]
				require.Equal(t, sent, int(in.Records+in.Dropped), "each one is a record or counted")
				if !taken {
					require.Zero(t, in.Records)
					return
				}
				require.Zero(t, in.Dropped)
				for i, rec := range s.all() {
					require.Equal(t, fmt.Sprintf("<34>%d", i), rec.Raw)
					require.Equal(t, netip.MustParseAddrPort(conn.LocalAddr().String()).Addr(), rec.Peer)
				}
			})
		}
	}
}
