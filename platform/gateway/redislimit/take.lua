-- A token bucket: KEYS[1] holds how many tokens were left, and when. ARGV is tokens a second, and at most.
-- Gives whether there was a token, and how many are left, as strings: Redis cuts numbers to whole ones.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local bucket = redis.call('HMGET', KEYS[1], 'left', 'at')
local left = burst
if bucket[1] then
	left = math.min(burst, tonumber(bucket[1]) + math.max(0, now - tonumber(bucket[2])) * rate)
end
local ok = '0'
if left >= 1 then
	ok, left = '1', left - 1
end
left = string.format('%.6f', left)
redis.call('HSET', KEYS[1], 'left', left, 'at', string.format('%.6f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil(burst / rate * 1000) + 1000)
return { ok, left }
