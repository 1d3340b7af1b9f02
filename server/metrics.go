package server

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"backstay/server/v3"
	"backstay/server/v4"
)

// metricsHandler serves /metrics for Prometheus and /healthz, which answers 503
// once the store has failed. Nothing in either tells a name.
func (s *Server) metricsHandler() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &collector{s})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-s.store.Failed():
			http.Error(w, "the store has failed", http.StatusServiceUnavailable)
		default:
			w.Write([]byte("ok\n"))
		}
	})
	return mux
}

// collector reads counters where they are kept when Prometheus asks.
type collector struct{ s *Server }

type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(v3.Counters) int64
}

func v3Metric(name, help string, value func(v3.Counters) int64) metric {
	return metric{prometheus.NewDesc("backstay_v3_"+name, help, nil, nil), prometheus.CounterValue, value}
}

var v3Metrics = []metric{
	v3Metric("sessions_total", "Sessions of protocol version 3.", func(c v3.Counters) int64 { return c.Sessions }),
	v3Metric("files_total", "Files received and durable.", func(c v3.Counters) int64 { return c.Files }),
	v3Metric("bytes_total", "Plaintext bytes of files received and durable.", func(c v3.Counters) int64 { return c.Bytes }),
	v3Metric("checksums_wrong_total", "Files that the client found wrong.", func(c v3.Counters) int64 { return c.ChecksumWrong }),
	v3Metric("refused_total", "Requests answered with an error.", func(c v3.Counters) int64 { return c.Refused }),
}

type agentMetric struct {
	desc  *prometheus.Desc
	value func(v4.Counters) int64
}

func v4Metric(name, help string, value func(v4.Counters) int64) agentMetric {
	return agentMetric{prometheus.NewDesc("backstay_v4_"+name, help, nil, nil), value}
}

var v4Metrics = []agentMetric{
	v4Metric("sessions_total", "Sessions of agents.", func(c v4.Counters) int64 { return c.Sessions }),
	v4Metric("enrolled_total", "Devices enrolled.", func(c v4.Counters) int64 { return c.Enrolled }),
	v4Metric("commits_total", "Commits durable.", func(c v4.Counters) int64 { return c.Commits }),
	v4Metric("received_bytes_total", "Bytes of objects received.", func(c v4.Counters) int64 { return c.BytesIn }),
	v4Metric("sent_bytes_total", "Bytes of objects sent.", func(c v4.Counters) int64 { return c.BytesOut }),
	v4Metric("refused_total", "Requests answered with an error.", func(c v4.Counters) int64 { return c.Refused }),
}

var (
	accountsDesc = prometheus.NewDesc("backstay_accounts", "Accounts.", nil, nil)
	devicesDesc  = prometheus.NewDesc("backstay_devices", "Devices, enrolled or of protocol version 3.", nil, nil)
	clockDesc    = prometheus.NewDesc("backstay_clock_trusted", "1 if commits are taken, 0 if the clock leapt and is not confirmed.", nil, nil)
	sessionsDesc = prometheus.NewDesc("backstay_sessions", "Connections being served.", nil, nil)
	objectsDesc  = prometheus.NewDesc("backstay_objects", "Sealed objects stored.", nil, nil)
	versionsDesc = prometheus.NewDesc("backstay_versions", "Versions of files stored.", nil, nil)
	storedDesc   = prometheus.NewDesc("backstay_stored_bytes", "Bytes of packs and index on the disk.", nil, nil)
)

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range v3Metrics {
		ch <- m.desc
	}
	for _, m := range v4Metrics {
		ch <- m.desc
	}
	for _, d := range []*prometheus.Desc{accountsDesc, devicesDesc, clockDesc, sessionsDesc, objectsDesc, versionsDesc, storedDesc} {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	counters := c.s.legacy.Counters()
	for _, m := range v3Metrics {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, float64(m.value(counters)))
	}
	agents := c.s.agents.Counters()
	for _, m := range v4Metrics {
		ch <- prometheus.MustNewConstMetric(m.desc, prometheus.CounterValue, float64(m.value(agents)))
	}
	st, err := c.s.Stats(context.Background())
	if err != nil {
		c.s.log.Error("statistics", "err", err)
		return
	}
	gauge := func(d *prometheus.Desc, v int64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v))
	}
	trusted := int64(1)
	if st.ClockProblem != "" {
		trusted = 0
	}
	gauge(accountsDesc, st.Accounts)
	gauge(devicesDesc, st.Devices)
	gauge(clockDesc, trusted)
	gauge(sessionsDesc, st.Sessions)
	gauge(objectsDesc, st.Objects)
	gauge(versionsDesc, st.Versions)
	gauge(storedDesc, st.BytesStored)
}
