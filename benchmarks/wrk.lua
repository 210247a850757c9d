-- Plays the requests of a file in a circle, and ends with one line of JSON. See calls.py for the file's form.
local requests, count, turn = {}, 0, 0

function init(arguments)
   local file = assert(io.open(arguments[1], "rb"))
   for line in function() return file:read("*l") end do
      count = count + 1
      requests[count] = file:read(tonumber(line))
   end
   file:close()
end

function request()
   turn = turn % count + 1
   return requests[turn]
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '{"requests":%d,"seconds":%.6f,"p50_us":%d,"p99_us":%d,"not_2xx":%d,"broken":%d,"late":%d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
      errors.status, errors.connect + errors.read + errors.write, errors.timeout))
end
