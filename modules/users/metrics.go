package users

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are what an operator watches for people who try to be somebody else.
type metrics struct {
	loginsOK, loginsWrong, loginsDelayed prometheus.Counter
	refreshReused                        prometheus.Counter
}

// newMetrics registers with r; a nil r counts for nobody.
func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	logins := f.NewCounterVec(prometheus.CounterOpts{
		Name: "banyan_users_logins_total", Help: "Logins by outcome: ok, wrong (e-mail or password), or delayed after too many of those.",
	}, []string{"outcome"})
	return &metrics{
		loginsOK: logins.WithLabelValues("ok"), loginsWrong: logins.WithLabelValues("wrong"), loginsDelayed: logins.WithLabelValues("delayed"),
		refreshReused: f.NewCounter(prometheus.CounterOpts{
			Name: "banyan_users_refresh_reuse_total", Help: "Sessions ended because an old refresh token was shown again.",
		}),
	}
}
