-- Erasure of rows in views whose keys do not hold the subject: each key gets a floor of its own, which the guard keeps,
-- and loses the row that lies below it.
-- KEYS[1]    the hash of the bucket (erase_floors.lua): '@' and the entity key to floor and epoch
-- KEYS[2..]  data keys
-- ARGV[1..]  the floor of each key, 8 bytes, and its epoch, 4 bytes
-- Returns how many rows were taken away.
local entity_starts = #KEYS[1] - #'@erased:' + 2

local function at_most(one, other)
  local a, b = struct.unpack('>i4I4', one)
  local c, d = struct.unpack('>i4I4', other)
  return a < c or (a == c and b <= d)
end

local taken = 0
for i = 2, #KEYS do
  local floor = ARGV[i - 1]
  redis.call('HSET', KEYS[1], '@' .. string.sub(KEYS[i], entity_starts), floor)
  local header = redis.call('GETRANGE', KEYS[i], 0, 15)
  if #header == 16 and at_most(string.sub(header, 9, 16), string.sub(floor, 1, 8))
    and struct.unpack('>I4', header) % 16777216 <= struct.unpack('>I4', floor, 9) then
    taken = taken + redis.call('DEL', KEYS[i])
  end
end
return taken
