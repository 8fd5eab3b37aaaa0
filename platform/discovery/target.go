package discovery

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// how says by what means a target's instances are found.
type how int

const (
	static how = iota // written in the target itself
	byHost            // A and AAAA records of a name, one port
	bySRV             // SRV records
	byConsul
)

// spec is a target that was understood.
type spec struct {
	how    how
	scheme string     // http or https: what instances speak
	name   string     // host, SRV name or Consul service
	port   string     // byHost
	tag    string     // byConsul
	listed []endpoint // static
}

// endpoint is where one instance listens, as it was found.
type endpoint struct {
	address  string // host:port to dial
	server   string // the name its certificate must have
	priority int    // of SRV: higher ones are used when no lower one is good
	weight   int    // share of new requests, relative to the others; at least 1
}

// authority is the host of URLs that lead to the target.
func (s spec) authority() string {
	switch s.how {
	case static:
		return s.listed[0].address
	case byHost:
		return net.JoinHostPort(strings.TrimSuffix(s.name, "."), s.port)
	}
	return strings.TrimSuffix(s.name, ".")
}

const forms = "write http://host:port (several with commas between), dns+http://name:port, srv+http://name or consul://service"

// Check says what is wrong with a target, and what to write instead, without looking anything up.
func Check(target string) error {
	_, err := parse(target)
	return err
}

func parse(target string) (spec, error) {
	list := strings.Split(target, ",")
	if strings.TrimSpace(target) == "" {
		return spec{}, errors.New("no target: " + forms)
	}
	var s spec
	for i, part := range list {
		part = strings.TrimSpace(part)
		if part == "" {
			return spec{}, fmt.Errorf("target %q: entry %d of its list is empty: remove the extra comma", target, i+1)
		}
		one, err := parseOne(part)
		if err != nil {
			return spec{}, err
		}
		switch {
		case i == 0:
			s = one
		case s.how != static || one.how != static:
			return spec{}, fmt.Errorf("target %q: only http:// and https:// addresses make a list: a name that is looked up stands alone", target)
		case s.scheme != one.scheme:
			return spec{}, fmt.Errorf("target %q mixes http and https: its instances must speak the same", target)
		case slices.Contains(s.listed, one.listed[0]):
			return spec{}, fmt.Errorf("target %q has %s twice", target, part)
		default:
			s.listed = append(s.listed, one.listed[0])
		}
	}
	return s, nil
}

func parseOne(target string) (spec, error) {
	u, err := url.Parse(target)
	if err != nil {
		return spec{}, fmt.Errorf("target %q is no URL: %s", target, forms)
	}
	var s spec
	switch u.Scheme {
	case "http", "https":
		s = spec{how: static, scheme: u.Scheme}
	case "dns+http", "dns+https":
		s = spec{how: byHost, scheme: strings.TrimPrefix(u.Scheme, "dns+")}
	case "srv+http", "srv+https":
		s = spec{how: bySRV, scheme: strings.TrimPrefix(u.Scheme, "srv+")}
	case "consul":
		s = spec{how: byConsul, scheme: "http"}
	default:
		return spec{}, fmt.Errorf("target %q: nothing is known of scheme %q: %s", target, u.Scheme, forms)
	}
	if u.User != nil || u.Fragment != "" || u.Opaque != "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" && s.how != byConsul {
		return spec{}, fmt.Errorf("target %q is more than an address: %s", target, forms)
	}
	s.name = u.Hostname()
	if s.name == "" {
		return spec{}, fmt.Errorf("target %q names no host: %s", target, forms)
	}
	port := u.Port()
	if strings.HasSuffix(u.Host, ":") {
		return spec{}, fmt.Errorf("target %q ends before its port", target)
	}
	if s.how == bySRV || s.how == byConsul {
		if port != "" {
			return spec{}, fmt.Errorf("target %q has a port: leave it out, it comes with the instances", target)
		}
	} else if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[s.scheme]
	} else if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return spec{}, fmt.Errorf("target %q: port %s is not between 1 and 65535", target, port)
	}
	switch s.how {
	case static:
		s.listed = []endpoint{{address: net.JoinHostPort(s.name, port), server: s.name, weight: 1}}
	case byHost:
		s.port = port
		if net.ParseIP(s.name) != nil {
			return spec{}, fmt.Errorf("target %q looks up an address: write %s://%s", target, s.scheme, u.Host)
		}
	case byConsul:
		q, err := url.ParseQuery(u.RawQuery)
		if err != nil {
			return spec{}, fmt.Errorf("target %q: its query can't be read: write consul://service?tag=name", target)
		}
		for k := range q {
			if k != "tag" || len(q[k]) != 1 || q.Get(k) == "" {
				return spec{}, fmt.Errorf("target %q: only one ?tag=name may follow the service", target)
			}
		}
		s.tag = q.Get("tag")
	}
	return s, nil
}
