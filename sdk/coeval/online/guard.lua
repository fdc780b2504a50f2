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
local LAYOUT = struct.pack('>BBBB', 3, 0, 0, 0)
local NO_FLOOR = struct.pack('>i4I4', -2147483648, 0)

-- What was erased in this bucket: floors (T, E) by place and text of a part of the entity key (erase_floors.lua), and
-- of single keys by '@' and the entity key (erase_rows.lua).
local floors = string.gsub(KEYS[1], ':@offset:', ':@erased:', 1)
local any_floor = redis.call('EXISTS', floors) == 1
local entity_starts = #KEYS[1] - #'@offset:' + 2

-- Lua's numbers are doubles, exact to 2^53 only: 64-bit integers are compared in two halves, and copied as bytes.
local function at_most(one, other)
  local a, b = struct.unpack('>i4I4', one)
  local c, d = struct.unpack('>i4I4', other)
  return a < c or (a == c and b <= d)
end

local function floors_of(key)
  local found, place = {}, 0
  if any_floor then
    for part in string.gmatch(string.sub(key, entity_starts), '[^|]+') do
      local known = redis.call('HGET', floors, place .. ':' .. part)
      if known then found[#found + 1] = known end
      place = place + 1
    end
  end
  return found
end

-- The floor that a key is born with: the one that reaches furthest. The others of its subjects stay in the hash.
local function furthest(found)
  local floor, epoch = NO_FLOOR, 0
  for _, known in ipairs(found) do
    local t, e = string.sub(known, 1, 8), (struct.unpack('>I4', known, 9))
    if t == floor then epoch = math.max(epoch, e) elseif not at_most(t, floor) then floor, epoch = t, e end
  end
  return floor, epoch
end

-- Whether what a writer of epoch p (the stream: 0) says of an instant was erased.
local function is_erased(found, at, p)
  for _, known in ipairs(found) do
    if p <= struct.unpack('>I4', known, 9) and at_most(at, string.sub(known, 1, 8)) then return true end
  end
  return false
end

local function tile(key, payload)
  local position, e1, e2, a1, a2, s1, s2, t1, p1, n1 = struct.unpack('>I4i4I4i4I4i4I4I8I4I4', payload)
  local header = redis.call('GETRANGE', key, 0, 31)
  local floor, epoch
  if #header == 32 then
    floor, epoch = string.sub(header, 25), struct.unpack('>I4', header, 5)
  else
    floor, epoch = furthest(floors_of(key))
  end
  local start = string.sub(payload, 21, 28)
  if floor ~= NO_FLOOR and at_most(start, floor) and is_erased(floors_of(key), start, p1) then return 0 end
  local old = redis.call('GETRANGE', key, position, position + 15)
  if #old == 16 then
    local t0, p0, n0 = struct.unpack('>I8I4I4', old)
    if t0 > t1 or (t0 == t1 and (p0 > p1 or (p0 == p1 and n0 >= n1))) then return 0 end
  end
  redis.call('SETRANGE', key, position, string.sub(payload, 29))
  local event_ts, available_at = string.sub(payload, 5, 12), string.sub(payload, 13, 20)
  if #header == 32 then
    local f1, f2, b1, b2 = struct.unpack('>i4I4i4I4', string.sub(header, 9))
    local event_stays = f1 > e1 or (f1 == e1 and f2 >= e2)
    local available_stays = b1 > a1 or (b1 == a1 and b2 >= a2)
    if event_stays and available_stays then return 1 end
    if event_stays then event_ts = string.sub(header, 9, 16) end
    if available_stays then available_at = string.sub(header, 17, 24) end
  end
  redis.call('SETRANGE', key, 0, LAYOUT .. struct.pack('>I4', epoch) .. event_ts .. available_at .. floor)
  return 1
end

local function row(key, payload)
  local old = redis.call('GETRANGE', key, 0, 39)
  local found = floors_of(key)
  local floor = #old == 40 and string.sub(old, 33) or furthest(found)
  local own = any_floor and redis.call('HGET', floors, '@' .. string.sub(key, entity_starts))
  if own then found[#found + 1] = own end
  if #found > 0 then
    local p = struct.unpack('>I4', payload) % 16777216
    if is_erased(found, string.sub(payload, 9, 16), p) then return 0 end
    if is_erased(found, string.sub(payload, 17, 24), p) then return 0 end
  end
  if #old == 40 then
    local p0, e0, f0, a0, b0, o0, q0 = struct.unpack('>i4i4I4i4I4i4I4', string.sub(old, 5))
    local p1, e1, f1, a1, b1, o1, q1 = struct.unpack('>i4i4I4i4I4i4I4', string.sub(payload, 5, 32))
    local stored, given = {e0, f0, a0, b0, p0, o0, q0}, {e1, f1, a1, b1, p1, o1, q1}
    local at = 1
    while at < 7 and stored[at] == given[at] do at = at + 1 end
    if given[at] <= stored[at] then return 0 end
  end
  redis.call('SET', key, string.sub(payload, 1, 32) .. floor .. string.sub(payload, 41))
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
