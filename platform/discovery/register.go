package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// RegisterOptions say what Consul shall know of this process. Service and Address are required, and one of Ready and Check.
type RegisterOptions struct {
	Service string   // callers reach it as consul://<Service>
	Address string   // host:port on which others reach this instance
	Tags    []string // callers may choose by one
	ID      string   // of this instance; default <Service>-<Address>

	Ready    string                      // URL that Consul shall ask whether this instance is well, like http://host:port/readyz
	Check    func(context.Context) error // or what we ask ourselves and tell Consul, which waits three Intervals for it
	Interval time.Duration               // between checks; default 5 s

	Consul string // its agent, default CONSUL_HTTP_ADDR, else 127.0.0.1:8500
	Token  string // default CONSUL_HTTP_TOKEN
	Log    *slog.Logger
}

// registration is a service in Consul's words.
type registration struct {
	ID, Name, Address string
	Port              int
	Tags              []string `json:",omitempty"`
	Check             check
}

type check struct {
	CheckID                        string
	HTTP                           string `json:",omitempty"`
	Interval                       string `json:",omitempty"`
	Timeout                        string `json:",omitempty"`
	TTL                            string `json:",omitempty"`
	Status                         string
	DeregisterCriticalServiceAfter string
}

// Register makes this process known to Consul, to be called when it is ready for requests. deregister takes it out again, is
// the first step of a drain, and may be repeated. Consul need not be there: what it does not know, because it was away or has
// forgotten, is told again in the background. Only wrong options and a refusal are errors.
func Register(ctx context.Context, o RegisterOptions) (deregister func(context.Context) error, err error) {
	r, err := newRegistrar(o)
	if err != nil {
		return nil, err
	}
	if err := r.register(ctx); err != nil {
		var no *refused
		if errors.As(err, &no) && no.status < http.StatusInternalServerError {
			r.agent.close()
			return nil, fmt.Errorf("register %s: %w", r.service.ID, err)
		}
		r.o.Log.Warn("not registered yet: trying on", "service", r.service.ID, "err", err)
	}
	keeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	var kept sync.WaitGroup
	kept.Go(func() { r.keep(keeping) })
	return func(ctx context.Context) error {
		stop()
		kept.Wait() // or it might register again what we take out
		defer r.agent.close()
		ctx, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		_, err := r.agent.call(ctx, http.MethodPut, "/v1/agent/service/deregister/"+r.service.ID, nil, nil, nil)
		if notFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("deregister %s: %w", r.service.ID, err)
		}
		return nil
	}, nil
}

// askTime bounds one question to the agent, which runs on the same machine.
const askTime = 5 * time.Second

type registrar struct {
	o       RegisterOptions
	agent   *agent
	service registration
}

func newRegistrar(o RegisterOptions) (*registrar, error) {
	host, p, err := net.SplitHostPort(o.Address)
	port, portErr := strconv.Atoi(p)
	switch {
	case o.Service == "" || url.PathEscape(o.Service) != o.Service:
		return nil, fmt.Errorf("register: %q is no name for a service: use letters, digits and hyphens", o.Service)
	case err != nil || portErr != nil || host == "" || port < 1 || port > 65535:
		return nil, fmt.Errorf("register %s: address %q is not the host:port on which others reach it", o.Service, o.Address)
	case (o.Ready == "") == (o.Check == nil):
		return nil, fmt.Errorf("register %s: set one of Ready and Check", o.Service)
	}
	if o.ID == "" {
		o.ID = o.Service + "-" + o.Address
	}
	if o.Interval <= 0 {
		o.Interval = 5 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	a, err := newAgent(o.Consul, o.Token)
	if err != nil {
		return nil, err
	}
	c := check{
		CheckID: "ready:" + o.ID, Status: "passing",
		DeregisterCriticalServiceAfter: "10m0s", // a process that was killed has nobody else to take it out
	}
	if o.Ready != "" {
		c.HTTP, c.Interval, c.Timeout = o.Ready, o.Interval.String(), "2s"
	} else {
		c.TTL = (3 * o.Interval).String()
	}
	return &registrar{o, a, registration{ID: o.ID, Name: o.Service, Address: host, Port: port, Tags: o.Tags, Check: c}}, nil
}

func (r *registrar) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	_, err := r.agent.call(ctx, http.MethodPut, "/v1/agent/service/register", url.Values{"replace-existing-checks": {"1"}}, r.service, nil)
	return err
}

// keep tells Consul how we are, or sees that it still knows us, until ctx ends.
func (r *registrar) keep(ctx context.Context) {
	lost := false
	for wait(ctx, r.o.Interval, nil) {
		err := r.tell(ctx)
		if notFound(err) {
			if err = r.register(ctx); err == nil {
				r.o.Log.Info("registered", "service", r.service.ID)
			}
		}
		if err != nil && ctx.Err() == nil && !lost {
			r.o.Log.Warn("consul does not hear of us", "service", r.service.ID, "err", err)
		}
		lost = err != nil
	}
}

func (r *registrar) tell(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if r.o.Check == nil {
		_, err := r.agent.call(ctx, http.MethodGet, "/v1/agent/service/"+r.service.ID, nil, nil, nil)
		return err
	}
	status := struct{ Status, Output string }{Status: "passing"}
	if err := r.o.Check(ctx); err != nil {
		status.Status, status.Output = "critical", err.Error()
	}
	_, err := r.agent.call(ctx, http.MethodPut, "/v1/agent/check/update/"+r.service.Check.CheckID, nil, status, nil)
	return err
}

// notFound says that Consul does not know what it was asked of. Older agents say so with 500.
func notFound(err error) bool {
	var no *refused
	return errors.As(err, &no) && (no.status == http.StatusNotFound || strings.Contains(no.text, "nknown"))
}
