-- The gate, over Redis: parked lanes (see lanes.py for the algorithm), for all processes with one namespace.
--
-- KEYS[1]  the namespace in braces, such as {thr}: every key starts with it, so that all are in one cluster slot
-- ARGV[1]  a batch, as MessagePack:
--            1  owner        the process that sends it: letters and digits
--            2  sequence     number of this batch, counted up by its owner; an older one is stale
--            3  lease        ms until this owner counts as dead unless it sends another batch
--            4  max_waiting  tickets that may wait in the namespace
--            5  aging        us of waiting that make up for one step of priority, or 0
--            6  announced    false, or all tickets of this owner: Redis is made to agree with them
--                              {serial, admitted (0 or 1), order (0: not known yet), priority, counter, slots, …}
--            7  operations   in order:
--                              {"acquire", serial, priority, counter, slots, counter, slots, …}
--                              {"release", serial}     its slots if it was admitted, its place if it waits
--                              {"quit"}                the owner's last word: all it has is released
--
-- A ticket is "owner:serial". Each operation may be sent again: a ticket that is here is not acquired twice, one that
-- is not here is not released.
--
-- Reply, as MessagePack:
--   {"unknown"}   the owner is not known (any more): nothing was done; announce
--   {"stale"}     a later batch of this owner was here before: nothing was done
--   {"ok", now (ms), admitted, full, queued, held, waiting, released, owners}
--      admitted   serials of this owner that were admitted in this batch, or that it announced as waiting and are not
--      full       serials that were refused, for as many wait as may
--      queued     serial, order, serial, order, …: those that wait now
--      held       how many admitted tickets this owner has
--      waiting    how many tickets wait in the namespace
--      released   how many have been released since the namespace was empty
--      owners     how many owners have a lease
-- What this batch admits of other owners is published to {namespace}:owner:OWNER, a MessagePack list of serials.
--
-- In Redis                  type    what
--   :owners                 zset    owner -> end of its lease (ms)
--   :tickets:OWNER          hash    serial -> "+lane" (admitted) or "-lane" (waits)
--   :lane:LANE              zset    ticket -> order
--   :parked:COUNTER         zset    lane -> order of its head; a lane is parked at one counter, which is full
--   :lanes                  hash    lane -> the counter where it is parked
--   :used                   hash    counter -> slots taken
--   :slots                  hash    counter -> slots it has, as the last ticket said
--   :needed                 hash    counter -> lanes that need it
--   :gate                   hash    arrival, clock, waiting, released, held:OWNER, sequence:OWNER
-- A lane's name is its counters' names, sorted, with spaces between them. Nothing is left of what is idle.

local PRIORITY = 2 ^ 45 -- as ARRIVALS in order.py

local namespace = KEYS[1]
local batch = cmsgpack.unpack(ARGV[1])
local me, sequence, lease, max_waiting, aging = batch[1], batch[2], batch[3], batch[4], batch[5]
local announced, operations = batch[6], batch[7]

local OWNERS, LANES = namespace .. ':owners', namespace .. ':lanes'
local USED, SLOTS, NEEDED = namespace .. ':used', namespace .. ':slots', namespace .. ':needed'
local GATE = namespace .. ':gate'
local LANE, PARKED = namespace .. ':lane:', namespace .. ':parked:'
local TICKETS, CHANNEL = namespace .. ':tickets:', namespace .. ':owner:'

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local admitted, full, queued = {}, {}, {}
local admitted_elsewhere = {} -- owner -> serials

-- Counters ---------------------------------------------------------------------------------------------------------

local function used(counter)
  return tonumber(redis.call('HGET', USED, counter) or 0)
end

local function is_full(counter)
  return used(counter) >= tonumber(redis.call('HGET', SLOTS, counter) or 0)
end

local function first_full(counters)
  for _, counter in ipairs(counters) do
    if is_full(counter) then
      return counter
    end
  end
end

local function forget_idle(counters)
  for _, counter in ipairs(counters) do
    if used(counter) <= 0 and not redis.call('HGET', NEEDED, counter) then
      redis.call('HDEL', USED, counter)
      redis.call('HDEL', SLOTS, counter)
    end
  end
end

local function counters_of(lane)
  local counters = {}
  for counter in string.gmatch(lane, '%S+') do
    counters[#counters + 1] = counter
  end
  return counters
end

-- Lanes ------------------------------------------------------------------------------------------------------------

local function park(lane, counter, order)
  redis.call('HSET', LANES, lane, counter)
  redis.call('ZADD', PARKED .. counter, order, lane)
end

-- Park a lane again after its head has changed; an empty one ends.
local function park_by_head(lane, counter)
  local head = redis.call('ZRANGE', LANE .. lane, 0, 0, 'WITHSCORES')
  if head[1] then
    return park(lane, counter, head[2])
  end
  redis.call('HDEL', LANES, lane)
  local counters = counters_of(lane)
  for _, needed in ipairs(counters) do
    if redis.call('HINCRBY', NEEDED, needed, -1) <= 0 then
      redis.call('HDEL', NEEDED, needed)
    end
  end
  forget_idle(counters)
end

local function join(owner, serial, lane, counters, full_counter, order)
  redis.call('ZADD', LANE .. lane, order, owner .. ':' .. serial)
  redis.call('HSET', TICKETS .. owner, serial, '-' .. lane)
  redis.call('HINCRBY', GATE, 'waiting', 1)
  local parked_at = redis.call('HGET', LANES, lane)
  if not parked_at then
    for _, needed in ipairs(counters) do
      redis.call('HINCRBY', NEEDED, needed, 1)
    end
    parked_at = full_counter
  end
  park_by_head(lane, parked_at)
end

local function take(owner, serial, lane, counters)
  for _, counter in ipairs(counters) do
    redis.call('HINCRBY', USED, counter, 1)
  end
  redis.call('HSET', TICKETS .. owner, serial, '+' .. lane)
  redis.call('HINCRBY', GATE, 'held:' .. owner, 1)
end

-- Serials are numbers in batches and texts in keys.
local function tell(owner, serial)
  local list = admitted
  if owner ~= me then
    list = admitted_elsewhere[owner] or {}
    admitted_elsewhere[owner] = list
  end
  list[#list + 1] = tonumber(serial)
end

-- Admit whoever the freed counters let through, best first, until nobody more fits.
local function settle(freed)
  while true do
    local at, lane, best
    for _, counter in ipairs(freed) do
      local head = redis.call('ZRANGE', PARKED .. counter, 0, 0, 'WITHSCORES')
      if head[1] and (not best or tonumber(head[2]) < best) and not is_full(counter) then
        at, lane, best = counter, head[1], tonumber(head[2])
      end
    end
    if not lane then
      return
    end
    redis.call('ZREM', PARKED .. at, lane)
    local counters = counters_of(lane)
    local full_counter = first_full(counters)
    if not full_counter then
      local ticket = redis.call('ZRANGE', LANE .. lane, 0, 0)[1]
      local owner, serial = string.match(ticket, '^(.*):(.*)$')
      redis.call('ZREM', LANE .. lane, ticket)
      redis.call('HINCRBY', GATE, 'waiting', -1)
      take(owner, serial, lane, counters)
      tell(owner, serial)
    end
    -- After an admission its lane stays here: if the counter has room still, it is looked at again.
    park_by_head(lane, full_counter or at)
  end
end

-- Take over the limits that came with a ticket; the last one given counts. Pairs are counter, slots, … from FIRST on.
-- Returns the counters, the lane's name, and the counters whose limit was raised: settle these.
local function counters_in(ticket, first)
  local counters, raised = {}, {}
  for i = first, #ticket, 2 do
    local counter, slots = ticket[i], ticket[i + 1]
    local before = tonumber(redis.call('HGET', SLOTS, counter) or '')
    if before ~= slots then
      redis.call('HSET', SLOTS, counter, slots)
      if before and before < slots then
        raised[#raised + 1] = counter
      end
    end
    counters[#counters + 1] = counter
  end
  table.sort(counters)
  return counters, table.concat(counters, ' '), raised
end

-- Tickets ----------------------------------------------------------------------------------------------------------

local function next_order(priority)
  if aging == 0 then
    return priority * PRIORITY + redis.call('HINCRBY', GATE, 'arrival', 1)
  end
  local arrival = time[1] * 1000000 + time[2]
  arrival = math.max(arrival, tonumber(redis.call('HGET', GATE, 'clock') or 0) + 1)
  redis.call('HSET', GATE, 'clock', string.format('%.0f', arrival))
  return arrival + priority * aging
end

local function acquire(serial, priority, ticket, first, known_order)
  if redis.call('HEXISTS', TICKETS .. me, serial) == 1 then
    return
  end
  local counters, lane, raised = counters_in(ticket, first)
  settle(raised)
  local full_counter = first_full(counters)
  if not full_counter then
    take(me, serial, lane, counters)
    tell(me, serial)
  elseif not known_order and tonumber(redis.call('HGET', GATE, 'waiting') or 0) >= max_waiting then
    full[#full + 1] = serial
    forget_idle(counters)
  else
    local order = known_order or next_order(priority)
    join(me, serial, lane, counters, full_counter, order)
    queued[#queued + 1] = serial
    queued[#queued + 1] = order
  end
end

local function withdraw(owner, serial, lane)
  local ticket = owner .. ':' .. serial
  redis.call('ZREM', LANE .. lane, ticket)
  redis.call('HINCRBY', GATE, 'waiting', -1)
  local parked_at = redis.call('HGET', LANES, lane)
  redis.call('ZREM', PARKED .. parked_at, lane)
  park_by_head(lane, parked_at)
end

local function release(owner, serial)
  local place = redis.call('HGET', TICKETS .. owner, serial)
  if not place then
    return
  end
  redis.call('HDEL', TICKETS .. owner, serial)
  local lane = string.sub(place, 2)
  if string.sub(place, 1, 1) == '-' then
    return withdraw(owner, serial, lane)
  end
  local counters = counters_of(lane)
  for _, counter in ipairs(counters) do
    redis.call('HINCRBY', USED, counter, -1)
  end
  redis.call('HINCRBY', GATE, 'held:' .. owner, -1)
  redis.call('HINCRBY', GATE, 'released', 1)
  settle(counters)
  forget_idle(counters)
end

-- What an owner has of one kind, '+' (slots) or '-' (places), but for the serials that are kept.
local function release_all(owner, kind, kept)
  local places = redis.call('HGETALL', TICKETS .. owner)
  for i = 1, #places, 2 do
    if string.sub(places[i + 1], 1, 1) == kind and not kept[places[i]] then
      release(owner, places[i])
    end
  end
end

-- Owners -----------------------------------------------------------------------------------------------------------

-- First the places of all of them, so that no slot freed here is given to one of them.
local function forget_owners(owners)
  for _, owner in ipairs(owners) do
    release_all(owner, '-', {})
  end
  for _, owner in ipairs(owners) do
    release_all(owner, '+', {})
    redis.call('ZREM', OWNERS, owner)
    redis.call('HDEL', GATE, 'held:' .. owner, 'sequence:' .. owner)
  end
  if redis.call('ZCARD', OWNERS) == 0 then
    redis.call('DEL', GATE)
  end
end

-- Announced tickets that wait, best first. One without an order yet comes after those of its priority that have one.
local function by_order(waiting)
  local orders = {}
  for _, ticket in ipairs(waiting) do
    local serial, order, priority = ticket[1], ticket[3], ticket[4]
    if order == 0 then
      order = aging == 0 and (priority + 1) * PRIORITY - 1 or time[1] * 1000000 + time[2] + priority * aging
    end
    orders[serial] = order
  end
  table.sort(waiting, function(a, b)
    local first, second = orders[a[1]], orders[b[1]]
    return first < second or first == second and a[1] < b[1]
  end)
  return waiting
end

-- An emptied Redis counts arrivals from the last that an owner still knows: who comes now comes after those who wait.
local function catch_up(waiting)
  local arrival = tonumber(redis.call('HGET', GATE, 'arrival') or 0)
  for _, ticket in ipairs(waiting) do
    local number = ticket[3] - ticket[4] * PRIORITY
    if aging == 0 and number > arrival and number < PRIORITY then
      arrival = number
      redis.call('HSET', GATE, 'arrival', arrival)
    end
  end
end

local function announce()
  local kept, waiting, raised = {}, {}, {}
  for _, ticket in ipairs(announced) do
    kept[string.format('%.0f', ticket[1])] = true
  end
  release_all(me, '-', kept)
  -- What holds a slot already counts before anything is admitted, even over the limit.
  for _, ticket in ipairs(announced) do
    local serial = string.format('%.0f', ticket[1])
    if ticket[2] == 0 then
      waiting[#waiting + 1] = ticket
    else
      local place = redis.call('HGET', TICKETS .. me, serial)
      if place and string.sub(place, 1, 1) == '-' then
        release(me, serial)
        place = nil
      end
      if not place then
        local counters, lane, raised_here = counters_in(ticket, 5)
        take(me, serial, lane, counters)
        for _, counter in ipairs(raised_here) do
          raised[#raised + 1] = counter
        end
      end
    end
  end
  settle(raised)
  catch_up(waiting)
  for _, ticket in ipairs(by_order(waiting)) do
    local serial = string.format('%.0f', ticket[1])
    local place = redis.call('HGET', TICKETS .. me, serial)
    if place and string.sub(place, 1, 1) == '+' then
      tell(me, serial)
    elseif place then
      queued[#queued + 1] = ticket[1]
      queued[#queued + 1] = tonumber(redis.call('ZSCORE', LANE .. string.sub(place, 2), me .. ':' .. serial))
    else
      acquire(ticket[1], ticket[4], ticket, 5, ticket[3] > 0 and ticket[3] or nil)
    end
  end
  release_all(me, '+', kept)
end

-- The batch --------------------------------------------------------------------------------------------------------

local function run()
  if sequence <= tonumber(redis.call('HGET', GATE, 'sequence:' .. me) or 0) then
    return { 'stale' }
  end
  local dead = redis.call('ZRANGEBYSCORE', OWNERS, '-inf', '(' .. now)
  if dead[1] then
    forget_owners(dead)
  end
  if not announced and not redis.call('ZSCORE', OWNERS, me) then
    return { 'unknown' }
  end
  redis.call('HSET', GATE, 'sequence:' .. me, sequence)
  redis.call('ZADD', OWNERS, now + lease, me)
  if announced then
    announce()
  end
  for _, operation in ipairs(operations) do
    if operation[1] == 'acquire' then
      acquire(operation[2], operation[3], operation, 4)
    elseif operation[1] == 'release' then
      release(me, operation[2])
    else
      forget_owners({ me })
    end
  end
  local counts = redis.call('HMGET', GATE, 'held:' .. me, 'waiting', 'released')
  return {
    'ok', now, admitted, full, queued,
    tonumber(counts[1] or 0), tonumber(counts[2] or 0), tonumber(counts[3] or 0),
    redis.call('ZCARD', OWNERS),
  }
end

local reply = run()
for owner, serials in pairs(admitted_elsewhere) do
  redis.call('PUBLISH', CHANNEL .. owner, cmsgpack.pack(serials))
end
return cmsgpack.pack(reply)
