-- The guarded write: absolute values with an order; the store keeps the greatest. Idempotent and commutative.
-- KEYS[1]    the offset key of the bucket (always given, so that every key shares its slot)
-- KEYS[2..]  one data key per update
-- ARGV[1]    'tile' or 'row'
-- ARGV[2]    milliseconds to keep the key from now on; '0' keeps it for ever
-- ARGV[3]    'fenced' or 'free'
-- ARGV[4]    the changelog offset that must be stored ('' for none)      (fenced)
-- ARGV[5]    the changelog offset to store                               (fenced)
-- ARGV[6..]  one payload per update
-- Returns {1, written, refused}, or {0, stored offset or ''} when fenced off (nothing is written then).
local kind, ttl = ARGV[1], ARGV[2]

-- Orders are compared as numbers: Lua's are doubles, exact to 2^53, which microseconds reach in the year 2255.
local function tile(key, payload)
  local position, event_ts, available_at = struct.unpack('>I4i8i8', payload)
  local slot = string.sub(payload, 21)
  local old = redis.call('GETRANGE', key, position, position + 15)
  if #old == 16 then
    local t0, e0, n0 = struct.unpack('>I8I4I4', old)
    local t1, e1, n1 = struct.unpack('>I8I4I4', slot)
    if t0 > t1 or (t0 == t1 and (e0 > e1 or (e0 == e1 and n0 >= n1))) then return 0 end
  end
  local header = redis.call('GETRANGE', key, 0, 23)
  redis.call('SETRANGE', key, position, slot)
  if #header == 24 and string.byte(header, 1) ~= 0 then
    local old_event, old_available = struct.unpack('>i8i8', string.sub(header, 9))
    if old_event >= event_ts and old_available >= available_at then return 1 end
    event_ts = math.max(old_event, event_ts)
    available_at = math.max(old_available, available_at)
  end
  redis.call('SETRANGE', key, 0, struct.pack('>BBBBBBBBi8i8', 2, 0, 0, 0, 0, 0, 0, 0, event_ts, available_at))
  return 1
end

local function row(key, payload)
  local old = redis.call('GETRANGE', key, 0, 31)
  if #old == 32 then
    local p0, e0, a0, o0 = struct.unpack('>i4i8i8i8', string.sub(old, 5))
    local p1, e1, a1, o1 = struct.unpack('>i4i8i8i8', string.sub(payload, 5))
    local newer = e1 > e0 or (e1 == e0 and (a1 > a0 or (a1 == a0 and (p1 > p0 or (p1 == p0 and o1 > o0)))))
    if not newer then return 0 end
  end
  redis.call('SET', key, payload)
  return 1
end

if ARGV[3] == 'fenced' then
  local stored = redis.call('GET', KEYS[1]) or ''
  if stored ~= ARGV[4] then return {0, stored} end
end
local write = kind == 'tile' and tile or row
local written = 0
for i = 2, #KEYS do
  local done = write(KEYS[i], ARGV[i + 4])
  written = written + done
  if done == 1 and ttl ~= '0' then redis.call('PEXPIRE', KEYS[i], ttl) end
end
if ARGV[3] == 'fenced' then redis.call('SET', KEYS[1], ARGV[5]) end
return {1, written, #KEYS - 1 - written}
