-- Raises the floors that the keys of a bucket are born with, and that the guard keeps. Idempotent; floors only rise.
-- KEYS[1]    the hash of the bucket: place:part to floor and epoch
-- ARGV[1]    how much of the table of erasures is applied once the keys that are there are done too; '' not to say
-- ARGV[2..]  pairs: place:part, the subject as a part of the entity key; floor, 8 bytes, and epoch, 4 bytes
local function at_most(one, other)
  local a, b = struct.unpack('>i4I4', one)
  local c, d = struct.unpack('>i4I4', other)
  return a < c or (a == c and b <= d)
end

for i = 2, #ARGV, 2 do
  local given, known = ARGV[i + 1], redis.call('HGET', KEYS[1], ARGV[i])
  if known then
    -- Of one subject a later erasure has both the later instant and the later epoch.
    local floor = at_most(string.sub(given, 1, 8), string.sub(known, 1, 8)) and known or given
    local epoch = math.max((struct.unpack('>I4', given, 9)), (struct.unpack('>I4', known, 9)))
    given = string.sub(floor, 1, 8) .. struct.pack('>I4', epoch)
  end
  redis.call('HSET', KEYS[1], ARGV[i], given)
end
if ARGV[1] ~= '' then redis.call('HSET', KEYS[1], 'pending', ARGV[1]) end
return 1
