-- Erasure of single rows, in views whose keys do not hold the subject: refused from now on, and taken away if stored.
-- KEYS[1]    what the guard refuses in this bucket (the hash of erase.lua)
-- KEYS[2..]  the data key of each row
-- ARGV[1..]  the order of each row, as bytes 5 to 32 of a row's header
-- Returns how many were stored.
local taken = 0
for i = 2, #KEYS do
  redis.call('HSET', KEYS[1], '@' .. ARGV[i - 1], '')
  if redis.call('GETRANGE', KEYS[i], 4, 31) == ARGV[i - 1] then taken = taken + redis.call('DEL', KEYS[i]) end
end
return taken
