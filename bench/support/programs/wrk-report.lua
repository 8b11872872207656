-- What wrk has seen, on one line of JSON after its own text: it prints no quantile above 99 %.
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'report {"requests":%d,"seconds":%.6f,"errors":%d,"p50Ms":%.4f,"p99Ms":%.4f,"p999Ms":%.4f}\n',
    summary.requests,
    summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3,
    latency:percentile(99.9) / 1e3
  ))
end
