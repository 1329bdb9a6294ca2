//go:build ignore

// Go's net/http as a client of many connections, each checked with a PING; see crowd_clients.py.
//
//	crowd PORT PERIOD
//
// PERIOD: seconds of silence before a PING, 0: none.  Commands on stdin, an answer in JSON for each:
//
//	connect N    dial so many more connections, each to an address of its own
//	request      one GET on each of those
//	window S     wait so many seconds: {"checks": PINGs sent, "cpu_ns": of this process}
//	memory       {"heap": octets, "resident": octets}
package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const pingFrameOctets = 17
const pingType = 6

var pings atomic.Int64

// counted is a connection that counts the PINGs it writes, for net/http tells nobody.
type counted struct{ net.Conn }

func (conn counted) Write(octets []byte) (int, error) {
	if len(octets) == pingFrameOctets && octets[3] == pingType {
		pings.Add(1)
	}
	return conn.Conn.Write(octets)
}

func cpu() int64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		log.Fatal(err)
	}
	return used.Utime.Nano() + used.Stime.Nano()
}

// heap has the goroutines' stacks too: a connection is nothing without its two.
func heap() uint64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc + stats.StackInuse
}

func resident() int {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		log.Fatal(err)
	}
	pages, err := strconv.Atoi(string(bytes.Fields(statm)[1]))
	if err != nil {
		log.Fatal(err)
	}
	return pages * os.Getpagesize()
}

func main() {
	port := os.Args[1]
	period, err := strconv.ParseFloat(os.Args[2], 64)
	if err != nil {
		log.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{
		Protocols: protocols,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: time.Duration(period * float64(time.Second)),
			PingTimeout:     5 * time.Second,
		},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			return counted{conn}, err
		},
	}
	var clients, asked []*http.ClientConn
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		words := strings.Fields(commands.Text())
		switch words[0] {
		case "connect":
			count, _ := strconv.Atoi(words[1])
			first := len(clients)
			for number := first + 1; number <= first+count; number++ {
				address := fmt.Sprintf("127.0.%d.%d:%s", number>>8, number&255, port)
				client, err := transport.NewClientConn(context.Background(), "http", address)
				if err != nil {
					log.Fatal(err)
				}
				clients = append(clients, client)
			}
			asked = clients[first:]
			fmt.Println("{}")
		case "request":
			for _, client := range asked {
				request, _ := http.NewRequest("GET", "http://127.0.0.1:"+port+"/", nil)
				response, err := client.RoundTrip(request)
				if err != nil {
					log.Fatal(err)
				}
				content, err := io.ReadAll(response.Body)
				if err != nil || string(content) != "ok\n" {
					log.Fatal("not what was asked for: ", string(content), err)
				}
				response.Body.Close()
			}
			fmt.Println("{}")
		case "window":
			seconds, _ := strconv.ParseFloat(words[1], 64)
			before, used := pings.Load(), cpu()
			time.Sleep(time.Duration(seconds * float64(time.Second)))
			fmt.Printf("{\"checks\": %d, \"cpu_ns\": %d}\n", pings.Load()-before, cpu()-used)
		case "memory":
			fmt.Printf("{\"heap\": %d, \"resident\": %d}\n", heap(), resident())
		}
	}
	runtime.KeepAlive(clients)
}
