-- Erasure: takes away what lies at or below a floor (T, E), and raises the floors of the keys that are left. Idempotent.
-- KEYS[1..]  data keys that hold the subject
-- ARGV[1]    'tile' or 'row'
-- ARGV[2]    floor, 8 bytes, and epoch, 4 bytes
-- ARGV[3..]  tile: per granularity the ring's first byte, its slots, the bytes of one, the last tile at the floor
-- Returns {keys found, tiles or rows taken away}.
local FLOOR, EPOCH = string.sub(ARGV[2], 1, 8), (struct.unpack('>I4', ARGV[2], 9))
local ZERO = string.rep('\0', 8)

local function at_most(one, other)
  local a, b = struct.unpack('>i4I4', one)
  local c, d = struct.unpack('>i4I4', other)
  return a < c or (a == c and b <= d)
end

-- A header holds the floor that reaches furthest, with its own epoch; the hash of the bucket holds each one.
local function furthest(floor, epoch)
  if floor == FLOOR then return floor, math.max(epoch, EPOCH) end
  if at_most(floor, FLOOR) then return FLOOR, EPOCH end
  return floor, epoch
end

local function take_tiles(key)
  local blob, taken, left = redis.call('GET', key), 0, false
  for i = 3, #ARGV do
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
  local floor, epoch = furthest(string.sub(blob, 25, 32), (struct.unpack('>I4', blob, 5)))
  local header = string.sub(blob, 1, 4) .. struct.pack('>I4', epoch) .. event_ts .. available_at .. floor
  redis.call('SETRANGE', key, 0, header)
  return taken
end

local function row(key)
  local header = redis.call('GETRANGE', key, 0, 39)
  local reached = at_most(string.sub(header, 9, 16), FLOOR) or at_most(string.sub(header, 17, 24), FLOOR)
  if reached and struct.unpack('>I4', header) % 16777216 <= EPOCH then return redis.call('DEL', key) end
  redis.call('SETRANGE', key, 32, (furthest(string.sub(header, 33, 40), 0)))
  return 0
end

local keys, taken = 0, 0
for i = 1, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    local gone = ARGV[1] == 'tile' and tiles(KEYS[i]) or ARGV[1] == 'row' and row(KEYS[i])
    keys, taken = keys + 1, taken + gone
  end
end
return {keys, taken}
