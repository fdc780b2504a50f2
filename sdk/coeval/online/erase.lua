-- Erasure: raises the floors of one bucket and takes away what lies at or below them. Idempotent; floors only rise.
-- KEYS[1]    the floors that keys of the bucket are born with (a hash: place:part to floor and epoch)
-- KEYS[2..]  data keys that hold the subject
-- ARGV[1]    'tile' or 'row'
-- ARGV[2]    place:part, the subject as a part of the entity key
-- ARGV[3]    floor, 8 bytes, and epoch, 4 bytes
-- ARGV[4..]  tile: per granularity the ring's first byte, its slots, the bytes of one, the last tile at the floor
-- Returns {keys changed, tiles or rows taken away}.
local FLOOR, EPOCH = string.sub(ARGV[3], 1, 8), (struct.unpack('>I4', ARGV[3], 9))
local ZERO = string.rep('\0', 8)

local function at_most(one, other)
  local a, b = struct.unpack('>i4I4', one)
  local c, d = struct.unpack('>i4I4', other)
  return a < c or (a == c and b <= d)
end

local function raised(floor, epoch)
  return at_most(floor, FLOOR) and FLOOR or floor, math.max(epoch, EPOCH)
end

local function take_tiles(key)
  local blob, taken, left = redis.call('GET', key), 0, false
  for i = 4, #ARGV do
    local first, slots, size, last = struct.unpack('>I4I4I4I8', ARGV[i])
    for at = first, first + (slots - 1) * size, size do
      if #blob >= at + 16 then
        local tile, epoch = struct.unpack('>I8I4', blob, at + 1)
        if tile ~= 0 and tile <= last and epoch <= EPOCH then
          redis.call('SETRANGE', key, at, string.rep('\0', size))
          taken = taken + 1
        elseif tile ~= 0 then
          left = true
        end
      end
    end
  end
  return blob, taken, left
end

local function tiles(key)
  local blob, taken, left = take_tiles(key)
  if not left then
    redis.call('DEL', key)
    return taken
  end
  -- A time up to the floor may be that of an erased event.
  local event_ts, available_at = string.sub(blob, 9, 16), string.sub(blob, 17, 24)
  if at_most(event_ts, FLOOR) then event_ts = ZERO end
  if at_most(available_at, FLOOR) then available_at = ZERO end
  local floor, epoch = raised(string.sub(blob, 25, 32), (struct.unpack('>I4', blob, 5)))
  local header = string.sub(blob, 1, 4) .. struct.pack('>I4', epoch) .. event_ts .. available_at .. floor
  redis.call('SETRANGE', key, 0, header)
  return taken
end

local function row(key)
  local header = redis.call('GETRANGE', key, 0, 39)
  if at_most(string.sub(header, 17, 24), FLOOR) then return redis.call('DEL', key) end
  redis.call('SETRANGE', key, 32, (raised(string.sub(header, 33, 40), 0)))
  return 0
end

local known = redis.call('HGET', KEYS[1], ARGV[2])
local floor, epoch = FLOOR, EPOCH
if known then floor, epoch = raised(string.sub(known, 1, 8), (struct.unpack('>I4', known, 9))) end
redis.call('HSET', KEYS[1], ARGV[2], floor .. struct.pack('>I4', epoch))
local keys, taken = 0, 0
for i = 2, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    local gone = ARGV[1] == 'tile' and tiles(KEYS[i]) or ARGV[1] == 'row' and row(KEYS[i])
    keys, taken = keys + 1, taken + gone
  end
end
return {keys, taken}
