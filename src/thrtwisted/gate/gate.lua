-- The gate, over Redis: parked lanes (see lanes.py for the algorithm), for all processes with one namespace.
--
-- KEYS[1]  the namespace in braces, such as {thr}: every key starts with it, so that all are in one cluster slot
-- ARGV[1]  a batch, as MessagePack:
--            1  owner        the process that sends it: letters and digits
--            2  sequence     number of this batch, counted up by its owner; an older one is stale
--            3  lease        ms until this owner counts as dead unless it sends another batch
--            4  grace        ms that a grace has to wait for this owner
--            5  max_waiting  tickets that may wait in the namespace
--            6  aging        us of waiting that make up for one step of priority, or 0
--            7  known        {epoch, count, sequence, owners}: of the last reply that this owner has had, and the number
--                            of the batch that it answered; {"", 0, 0, 0} before the first
--            8  announced    false, or tickets of this owner: Redis is made to agree with them
--                              {first, final, from, to, ticket, …}: a part of an announcement, of the serials above
--                              `from` up to `to`; what Redis has of these and is not in it, goes.
--                              ticket: {serial, admitted, order (0: not known yet), priority, worker, NEEDS}
--                              admitted: 0 it waits; 1 it holds its slots, and its place at the worker ("": none);
--                              2 it does, if `again` has not been done: the serial that comes instead of it then stands
--                              in place of the order; 3 it comes instead of another, if `again` has been done
--            9  operations   in order:
--                              {"acquire", serial, priority, NEEDS}
--                              {"release", serial}     its slots if it was admitted, its place if it waits
--                              {"echo"}                nothing is published to this owner
--                              {"quit"}                the owner's last word: all it has is released
--                            and these, which are answered:
--                              {"again", serial, new, taken_too (0 or 1), order (0: none), priority, NEEDS}
--                                                      an admitted ticket waits again, as a new one, at its old rank;
--                                                      1, or 0 if a worker may have taken it and not taken_too
--                              {"serve", concurrency, queue, …}  this owner is a worker with so many places;
--                                                      {tickets that have a place there, front, …: of its orphans}
--                              {"take", front, serial} this owner begins what the ticket is for; 1, or 0 if it must
--                                                      not, or -1 if that cannot be told in grace
--                              {"inherit", front, serial, …}  of its orphans of this front, the worker is done with
--                                                      all but these; 1 if the front is dead, or 0
--                              {"peers", owner, …}     {ms until their leases end, 0: dead, -1: not to be told in grace}
--                              {"served", queue, …}    {places that workers have for them}, or -1 in grace
--          NEEDS is: reclaim delay (ms), the key that it takes turns with ("": none), the queue of which it needs a
--          worker ("": of none), then for each counter, in the
--          order of their names (byte by byte, for which Redis's own comparison depends on its locale), eight words:
--            name, slots   what it is called, and how many slots it has
--            weight        how many of them this ticket takes
--            most          how many tickets may wait for it (-1: as many as like)
--            interval      us between two tickets by its rate; 0 if it has none
--            burst         tickets that may come at once
--            over          what becomes of one over the rate: 0 it waits, -1 it is rejected, or else the priority (1 to
--                          99) that it competes with, unless its own is worse
--            shown         1 if the reply is to say what is left of it
-- ARGV[2]  "1" if this server may not have what another, or this one before it was started again, had
--
-- A ticket is "owner:serial". Each operation may be sent again: a ticket that is here is not acquired twice, one that
-- is not here is not released.
--
-- Turns, rates and workers are in files of their own, which are put where a line says so.
--
-- Reply, as MessagePack:
--   {"unknown"}   the owner is not known (any more), or its state is in doubt: none of its operations was done; announce
--   {"stale"}     a later batch of this owner was here before: nothing was done
--   {"ok", now (ms), epoch, count, admitted, full, queued, held, waiting, released, owners, grace, overshoot,
--    wake, rejected, demoted, quotas, answers, workers}
--      epoch      the time at which the namespace came into being, or its last grace began: another one, if Redis has
--                 lost some of its memory
--      count      of the batches since the namespace came into being
--      admitted   serials of this owner that were admitted in this batch, or that it announced as waiting and are not
--      full       serials that were refused, for as many wait as may
--      queued     serial, order, serial, order, …: those that wait now, and those that have a queue
--      held       how many admitted tickets this owner has
--      waiting    how many tickets wait in the namespace
--      released   how many have been released since the namespace was empty
--      owners     how many owners have a lease
--      grace      ms until the end of grace, or 0
--      overshoot  how many of the tickets announced as admitted were unknown here and are over a limit
--      wake       us after which this owner is to send a batch, for somebody may go then; 0 if another does, or nobody
--                 waits for time, nor is left for the next batch
--      rejected   serial, us until it could go, …: those that came over a rate that rejects
--      demoted    serial, priority, …: those that came over a rate that demotes, and what they compete with
--      quotas     counter, free slots, tickets that may go at once (-1: no rate), us until the burst may, …: what is left
--                 of the counters to be shown of those that were admitted
--      answers    of the operations that have one, in order
--      workers    serial, worker, …: where those that were admitted have their places
-- What this batch admits of other owners is published to {namespace}:owner:OWNER, as MessagePack: {serials, quotas, wake}
-- and, if there are any, workers, as above. No serials and no wake is the echo that an owner has asked for.
--
-- In Redis                  type    what
--   :owners                 zset    owner -> end of its lease (ms)
--   :dead                   zset    owner without a lease, whose slots are not free yet -> when the next of them is (ms)
--   :tickets:OWNER          hash    serial -> "+lane" (admitted) or "-lane" (waits), with \2 and the key that it takes
--                                   turns with, if it does; or \3 and the worker that it has a place at
--   :lane:LANE              zset    ticket -> order
--   :parked:COUNTER         zset    lane -> order of its head; a lane is parked at one counter, which blocks it
--   :lanes                  hash    lane -> the counter where it is parked
--   :used                   hash    counter -> slots taken
--   :slots                  hash    counter -> slots it has, as the last ticket said
--   :waiting                hash    counter -> tickets that wait and need it
--   :rates                  hash    counter -> "interval burst over shown", as the last ticket said; not without any
--   :rate:COUNTER           string  "tat weight": its theoretical arrival time (below), and the weight last counted
--   :turns:COUNTER          zset    "priority" -> the turn that is being served, "priority:key" -> the turn that the
--                                   key's next ticket has; behind priority * 2 ^ 45
--   :due                    zset    counter whose best parked lane lacks only time -> when it may go (us)
--   :workers                hash    worker -> "concurrency queue queue …"
--   :serving:QUEUE          zset    worker that has a free place for it -> its load, 0 to 1
--   :at:WORKER              hash    "front:serial" -> "" assigned; "t" taken, or maybe taken; "o" and the lane: an
--                                   orphan, whose front is dead, and whose slots stay taken until the worker is done.
--                                   These three go by themselves when nobody renews them, see workers.lua
--   :returned               set     in grace: owners that have announced
--   :gate                   hash    epoch, count, last (time of the last batch, ms), arrival, clock, waiting, released,
--                                   taken (slots of all counters), lease and pause (the longest that owners have said),
--                                   overshoot, weighted, rated, turning, relayed, rest (what stands for
--                                   queues in lanes, where the last batch has left tickets that may go), base (the highest turn served), grace (its
--                                   end, ms), graced (its beginning), expected (owners in grace), waker (the owner that
--                                   is to send a batch when the first counter is due), wake (when that is, us),
--                                   held:OWNER, sequence:OWNER, death:OWNER (end of a dead owner's lease)
-- A lane's name is its counters' names, sorted, with spaces between them. Where a ticket takes several slots of a
-- counter, \1 and the number follow its name; where there is a queue, \4 and its name come after them; where there is a
-- reclaim delay, \1 and the ms come last. Nothing is left
-- of what is idle, but what is used up of a rate: that outlasts all who have used it, and goes by itself in its time.

local PRIORITY, TURN = 2 ^ 45, 2 ^ 16 -- as ARRIVALS and TURN in order.py
local WORDS = 8 -- of each counter, in NEEDS

local namespace = KEYS[1]
local batch = cmsgpack.unpack(ARGV[1])
local me, sequence, lease, grace_time, max_waiting, aging = unpack(batch, 1, 6)
local known, announced, operations = batch[7], batch[8], batch[9]
local unfamiliar = ARGV[2] == '1'

local OWNERS, DEAD, LANES = namespace .. ':owners', namespace .. ':dead', namespace .. ':lanes'
local RATES, DUE, TURNS = namespace .. ':rates', namespace .. ':due', namespace .. ':turns:'
local GATE, RETURNED = namespace .. ':gate', namespace .. ':returned'
local LANE, PARKED = namespace .. ':lane:', namespace .. ':parked:'
local TICKETS, CHANNEL = namespace .. ':tickets:', namespace .. ':owner:'

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local instant = time[1] * 1000000 + time[2] -- now, in us: rates are reckoned in these

local gate = redis.call(
  'HMGET', GATE, 'epoch', 'count', 'last', 'grace', 'graced', 'weighted', 'sequence:' .. me,
  'held:' .. me, 'waiting', 'released', 'taken', 'lease', 'pause', 'rated', 'waker', 'turning', 'relayed',
  'rest'
)
local epoch, count, last = gate[1] or '', tonumber(gate[2] or 0), tonumber(gate[3] or 0)
local grace, graced = tonumber(gate[4] or 0), tonumber(gate[5] or 0)
local weighted = gate[6] -- whether a ticket has ever asked for several slots of a counter
local last_sequence = tonumber(gate[7] or 0)
-- What is done for rates, for turns and for workers, once a ticket has had any. Most have none, and each function that is
-- made costs each batch.
local rates, turns, workers
local waker, rest = gate[15], gate[18]
local admitted, full, queued, rejected, demoted = {}, {}, {}, {}, {}
local admitted_elsewhere = {} -- owner -> serials
local assigned = {} -- owner -> {serial, worker, …}
local answers = {}
local touched = {} -- counters where the best lane may be another one, though no number of theirs has changed
local published = {} -- owner -> message
local is_due_settled = false
local overshoot = 0
local is_empty = false -- whether nobody is left in the namespace

-- A function that is made in Lua looks for each local that it uses among all those that any function uses, one after the
-- other; but what is outside of the function that it is made in is at hand. There are many here, made for each batch: so
-- all of them are in one, which is not indented. That saves a fifth of what a short batch costs.
local function decisions()

-- A number as Redis reads it: in full.
local function text(number)
  return string.format('%.0f', number)
end

local function append(list, more)
  for _, item in ipairs(more) do
    list[#list + 1] = item
  end
end

-- Numbers ----------------------------------------------------------------------------------------------------------

-- Hashes of numbers. Nobody else is served while a script runs: each number is read once, and those that have changed
-- are written together in the end. One that is not there is `nothing`, and one that is `nothing` or less is not kept.
local function numbers(key, nothing)
  return { key = key, nothing = nothing, read = {}, changed = {} }
end

local USED, SLOTS = numbers(namespace .. ':used', 0), numbers(namespace .. ':slots', -1)
local WAITING, COUNTS = numbers(namespace .. ':waiting', 0), numbers(GATE, 0)
COUNTS.read['held:' .. me] = tonumber(gate[8] or 0)
COUNTS.read.waiting = tonumber(gate[9] or 0)
COUNTS.read.released = tonumber(gate[10] or 0)
COUNTS.read.taken = tonumber(gate[11] or 0)
COUNTS.read.lease = tonumber(gate[12] or 0)
COUNTS.read.pause = tonumber(gate[13] or 0)
-- Of all owners so far, the longest: that one may not be heard of sooner.
local longest_lease = math.max(tonumber(gate[12] or 0), lease)
local longest_pause = math.max(tonumber(gate[13] or 0), grace_time)

local function get(hash, field)
  local number = hash.read[field]
  if not number then
    number = tonumber(redis.call('HGET', hash.key, field) or hash.nothing)
    hash.read[field] = number
  end
  return number
end

local function set(hash, field, number)
  if hash.read[field] ~= number then
    hash.read[field] = number
    hash.changed[field] = true
  end
end

local function add(hash, field, number)
  number = get(hash, field) + number
  if number < 0 then
    error('attempt to take away more than there is of ' .. field) -- see is_torn
  end
  set(hash, field, number)
  return number
end

-- As many at a time as Lua can pass on.
local function in_parts(command, key, arguments)
  for i = 1, #arguments, 1000 do
    redis.call(command, key, unpack(arguments, i, math.min(i + 999, #arguments)))
  end
end

local function write(hash)
  if not next(hash.changed) then
    return
  end
  local kept, gone = {}, {}
  for field in pairs(hash.changed) do
    local number = hash.read[field]
    if number <= hash.nothing then
      gone[#gone + 1] = field
    else
      kept[#kept + 1] = field
      kept[#kept + 1] = number
    end
  end
  in_parts('HSET', hash.key, kept)
  in_parts('HDEL', hash.key, gone)
end

-- Counters ---------------------------------------------------------------------------------------------------------

-- Whether a counter has as many slots. A ticket that is heavier than the whole counter is let in alone.
local function has_room(counter, weight)
  local taken, slots = get(USED, counter), get(SLOTS, counter)
  return taken + weight <= slots or taken <= 0 and slots >= 1
end

-- Whether a ticket may go by what a counter has now: by its slots, and by its rate.
local function fits(counter, weight)
  if workers and string.byte(counter) == 4 then
    return workers.have_room(string.sub(counter, 2))
  end
  if not has_room(counter, weight) then
    return false
  end
  return not rates or rates.is_ready(counter, weight)
end

-- Nothing is known of counters that nobody needs any more.
local function forget_idle()
  local idle = {}
  for _, hash in ipairs({ USED, SLOTS, WAITING, rates and rates.said }) do
    for counter in pairs(hash.changed) do
      if get(USED, counter) <= 0 and get(WAITING, counter) <= 0 then
        idle[#idle + 1] = counter
      end
    end
  end
  for _, counter in ipairs(idle) do
    set(USED, counter, USED.nothing)
    set(SLOTS, counter, SLOTS.nothing)
    if rates then
      rates.forget(counter)
    end
  end
end

-- Turns ------------------------------------------------------------------------------------------------------------

--> turns.lua

if gate[16] then
  turns = rules_for_turns()
end

-- Workers ----------------------------------------------------------------------------------------------------------

--> workers.lua

if gate[17] then
  workers = rules_for_workers()
end

-- Lanes ------------------------------------------------------------------------------------------------------------

local read_lanes = {}

-- The lane that stands in a place; and the key that its ticket takes turns with while it waits, or the worker that it has
-- a place at.
local function lane_in(place)
  if not turns and not workers then
    return string.sub(place, 2), ''
  end
  return string.match(place, '^.([^\2\3]*)[\2\3]?(.*)$')
end

-- What the tickets of a lane need: {lane, counters, limits, weights by counter, reclaim delay (ms), queue}. The limits are
-- the counters without the one that stands for the queue: all that has slots.
local function needs_of(lane)
  local needs = read_lanes[lane]
  if not needs then
    needs = { lane = lane, counters = {}, weights = {}, reclaim = 0 }
    needs.limits = needs.counters
    for word in string.gmatch(lane, '%S+') do
      local counter, number = string.match(word, '^([^\1]*)\1?(%d*)$')
      if counter == '' then
        needs.reclaim = tonumber(number)
      else
        if string.byte(counter) == 4 then
          needs.queue = string.sub(counter, 2)
          needs.limits = { unpack(needs.counters) }
        end
        needs.counters[#needs.counters + 1] = counter
        needs.weights[counter] = tonumber(number) or 1
      end
    end
    read_lanes[lane] = needs
  end
  return needs
end

-- The lane parked at a counter with the best head, and that head's order.
local function best_parked(counter)
  local head = redis.call('ZRANGE', PARKED .. counter, 0, 0, 'WITHSCORES')
  return head[1], tonumber(head[2])
end

-- Whether a counter may have room though a lane is parked there. One that has weights may, and one that stands for a queue:
-- a worker is connected again some time before it says so, and not all of its places are given away in one batch.
-- Otherwise who is parked at a counter shows that it is full.
local function keeps_room(counter)
  return weighted or workers and string.byte(counter) == 4
end

-- Whether a counter holds a ticket up: it has no room, or what room it has is kept for a better one that is parked there.
local function blocks(counter, weight, order)
  if not fits(counter, weight) then
    return true
  end
  if keeps_room(counter) and get(WAITING, counter) > 0 then
    local lane, best = best_parked(counter)
    return lane and best < order
  end
end

local function first_blocking(needs, order)
  if grace > 0 then
    return needs.counters[1]
  end
  for _, counter in ipairs(needs.counters) do
    if blocks(counter, needs.weights[counter], order) then
      return counter
    end
  end
end

local function park(lane, counter, order)
  touched[counter] = true
  redis.call('HSET', LANES, lane, counter)
  redis.call('ZADD', PARKED .. counter, order, lane)
end

-- The head of a lane that is parked at a counter is another now; or there is none, and the lane ends.
local function park_by_head(needs, at)
  local head = redis.call('ZRANGE', LANE .. needs.lane, 0, 0, 'WITHSCORES')
  if head[1] then
    redis.call('ZADD', PARKED .. at, head[2], needs.lane)
  else
    redis.call('ZREM', PARKED .. at, needs.lane)
    redis.call('HDEL', LANES, needs.lane)
  end
end

local function join(owner, serial, needs, blocking, order, key)
  local lane, ticket = needs.lane, owner .. ':' .. serial
  redis.call('ZADD', LANE .. lane, order, ticket)
  redis.call('HSET', TICKETS .. owner, serial, '-' .. lane .. (key and '\2' .. key or ''))
  if key then
    turns.take(needs.counters, order, key)
  end
  add(COUNTS, 'waiting', 1)
  for _, counter in ipairs(needs.counters) do
    add(WAITING, counter, 1)
  end
  local at = redis.call('HGET', LANES, lane)
  if not at then
    park(lane, blocking, order)
  elseif redis.call('ZRANGE', LANE .. lane, 0, 0)[1] == ticket then
    -- A better head may be blocked elsewhere only: it waited behind a better lane that it now goes before.
    if keeps_room(at) and grace == 0 and not blocks(at, needs.weights[at], order) then
      redis.call('ZREM', PARKED .. at, lane)
      at = blocking
    end
    park(lane, at, order)
  end
end

-- Tickets of a lane do not wait any more. Where nobody waits, nobody has turns.
local function leave(needs, tickets)
  local left = add(COUNTS, 'waiting', -tickets)
  for _, counter in ipairs(needs.counters) do
    if add(WAITING, counter, -tickets) == 0 and turns then
      redis.call('DEL', TURNS .. counter)
    end
  end
  if left == 0 and turns then
    set(COUNTS, 'base', 0)
  end
end

local function take_slots(needs)
  for _, counter in ipairs(needs.limits) do
    add(USED, counter, needs.weights[counter])
    add(COUNTS, 'taken', needs.weights[counter])
  end
end

local function give_back_slots(needs)
  for _, counter in ipairs(needs.limits) do
    add(USED, counter, -needs.weights[counter])
    add(COUNTS, 'taken', -needs.weights[counter])
  end
end

-- Give a ticket what it needs. Where it has a queue, returns the worker that it has a place at: the best, or the one given.
local function take(owner, serial, needs, worker, state)
  local place = '+' .. needs.lane
  if needs.queue and worker ~= '' then
    worker = workers.assign(owner .. ':' .. serial, needs.queue, worker, state)
    place = place .. '\3' .. worker
  end
  take_slots(needs)
  redis.call('HSET', TICKETS .. owner, serial, place)
  add(COUNTS, 'held:' .. owner, 1)
  return worker
end

-- Rates ------------------------------------------------------------------------------------------------------------

--> rates.lua

if gate[14] then
  rates = rules_for_rates()
end

-- Serials are numbers in batches and texts in keys.
local function tell(owner, serial, needs, worker)
  local list = admitted
  if owner ~= me then
    list = admitted_elsewhere[owner] or {}
    admitted_elsewhere[owner] = list
  end
  list[#list + 1] = tonumber(serial)
  if needs.queue then
    assigned[owner] = assigned[owner] or {}
    append(assigned[owner], { tonumber(serial), worker })
  end
  if rates then
    rates.show(owner, needs)
  end
end

-- A heap, the lowest order first: after a grace there may be thousands of counters to look at.
local function push(heap, entry)
  local i = #heap + 1
  while i > 1 do
    local parent = math.floor(i / 2)
    if heap[parent].order <= entry.order then
      break
    end
    heap[i] = heap[parent]
    i = parent
  end
  heap[i] = entry
end

local function pop(heap)
  local first, entry = heap[1], table.remove(heap)
  local size, i = #heap, 1
  while size > 0 do
    local child = 2 * i
    if child < size and heap[child + 1].order < heap[child].order then
      child = child + 1
    end
    if child > size or entry.order <= heap[child].order then
      heap[i] = entry
      break
    end
    heap[i] = heap[child]
    i = child
  end
  return first
end

-- Admit whoever the freed counters let through, best first, until nobody more fits.
local function settle(freed)
  if grace > 0 or get(COUNTS, 'waiting') <= 0 then
    return
  end
  local heap, is_freed, changes = {}, {}, 0
  local function look_at(counter)
    touched[counter] = true
    if get(WAITING, counter) <= 0 or not fits(counter, 1) then
      return
    end
    local lane, order = best_parked(counter)
    if lane and fits(counter, needs_of(lane).weights[counter]) then
      push(heap, { order = order, counter = counter, lane = lane, seen = changes })
    end
  end
  for _, counter in ipairs(freed) do
    is_freed[counter] = true
    look_at(counter)
  end
  if rates and not is_due_settled then
    -- With the first that are settled go those that have come due, so that nobody overtakes who waits there.
    is_due_settled = true
    for _, counter in ipairs(redis.call('ZRANGEBYSCORE', DUE, '-inf', text(instant))) do
      is_freed[counter] = true
      look_at(counter)
    end
  end
  while heap[1] do
    local entry = pop(heap)
    local at, needs = entry.counter, needs_of(entry.lane)
    -- What has changed since it was looked at has been looked at again.
    local is_current = entry.seen == changes
    if not is_current then
      local lane, order = best_parked(at)
      is_current = lane == entry.lane and order == entry.order and fits(at, needs.weights[at])
    end
    if is_current then
      changes = changes + 1
      local blocking = first_blocking(needs, entry.order)
      if blocking then
        redis.call('ZREM', PARKED .. at, needs.lane)
        park(needs.lane, blocking, entry.order)
      else
        local owner, serial = string.match(redis.call('ZPOPMIN', LANE .. needs.lane)[1], '^(.*):(.*)$')
        if turns then
          local _, key = lane_in(redis.call('HGET', TICKETS .. owner, serial))
          if key ~= '' then
            turns.serve(needs.counters, entry.order)
          end
        end
        leave(needs, 1)
        local worker = take(owner, serial, needs)
        if rates then
          rates.charge_admitted(needs, true)
        end
        tell(owner, serial, needs, worker)
        park_by_head(needs, at) -- if the counter has room still, the lane is looked at again
      end
      look_at(at)
      if blocking and is_freed[blocking] then
        look_at(blocking)
      end
    end
  end
end

local function need_workers()
  if not workers then
    workers = rules_for_workers()
    workers.begin()
    set(COUNTS, 'relayed', 1)
  end
end

-- What a ticket needs, as it says from FIRST on; the limits that it brings are taken over, the last one given counts.
-- Returns the needs, and the counters whose limit was raised, or whose rate is another: settle these.
local function needs_in(ticket, first)
  local words, raised = {}, {}
  for i = first + 3, #ticket, WORDS do
    local counter, slots, weight = ticket[i], ticket[i + 1], ticket[i + 2]
    local before = get(SLOTS, counter)
    local interval, is_shown = ticket[i + 4], ticket[i + 7]
    if not rates and (interval > 0 or is_shown > 0) then
      rates = rules_for_rates()
      set(COUNTS, 'rated', 1)
    end
    if rates and rates.set(counter, interval, ticket[i + 5], ticket[i + 6], is_shown) then
      raised[#raised + 1] = counter
    end
    if before ~= slots then
      set(SLOTS, counter, slots)
      if before ~= SLOTS.nothing and before < slots then
        raised[#raised + 1] = counter
      end
    end
    if weight > 1 then
      counter = counter .. '\1' .. weight
      if not weighted then
        weighted = '1'
        set(COUNTS, 'weighted', 1)
      end
    end
    words[#words + 1] = counter
  end
  if ticket[first + 2] ~= '' then
    need_workers()
    words[#words + 1] = '\4' .. ticket[first + 2]
  end
  if ticket[first] > 0 then
    words[#words + 1] = '\1' .. ticket[first]
  end
  return needs_of(table.concat(words, ' ')), raised
end

-- Whether as many wait as may, in the namespace or for one of the ticket's counters.
local function is_queue_full(ticket, first)
  if get(COUNTS, 'waiting') >= max_waiting then
    return true
  end
  for i = first + 3, #ticket, WORDS do
    local most = ticket[i + 3]
    if most >= 0 and get(WAITING, ticket[i]) >= most then
      return true
    end
  end
end

-- Tickets ----------------------------------------------------------------------------------------------------------

-- The order of a ticket that arrives, and takes turns with a key if there is one.
local function next_order(priority, counters, key)
  if aging == 0 then
    local number = add(COUNTS, 'arrival', 1)
    if key then
      number = turns.next(counters, priority, key) * TURN + number % TURN
    end
    return priority * PRIORITY + number
  end
  local arrival = time[1] * 1000000 + time[2]
  arrival = math.max(arrival, get(COUNTS, 'clock') + 1)
  set(COUNTS, 'clock', arrival)
  return arrival + priority * aging
end

-- The key that a ticket takes turns with, as it says itself. With aging, nobody takes turns.
local function turn_key(key)
  if key == '' or aging ~= 0 then
    return nil
  end
  if not turns then
    turns = rules_for_turns()
    set(COUNTS, 'turning', 1)
  end
  return key
end

-- A ticket arrives; or, with an order that is known, comes back to a queue that has forgotten it.
local function acquire(serial, priority, ticket, first, known_order)
  if redis.call('HEXISTS', TICKETS .. me, serial) == 1 then
    return
  end
  local needs, raised = needs_in(ticket, first)
  settle(raised)
  local own_priority, delay, counted = priority, nil, nil
  if rates and not known_order then
    delay, priority, counted = rates.look_at(needs, priority)
  end
  if delay then
    rejected[#rejected + 1] = serial
    rejected[#rejected + 1] = delay
    return
  end
  local key = turn_key(ticket[first + 1])
  -- One with a queue has a rank even if it is admitted at once: it may have to come back.
  local order = known_order or (weighted or needs.queue) and next_order(priority, needs.counters, key)
  local blocking = first_blocking(needs, order)
  if blocking and not known_order and is_queue_full(ticket, first) then
    full[#full + 1] = serial
    return
  end
  if counted then
    rates.charge_arrived(needs, counted)
  end
  if not blocking then
    local worker = take(me, serial, needs)
    if rates then
      rates.charge_admitted(needs, known_order)
    end
    tell(me, serial, needs, worker)
  else
    order = order or next_order(priority, needs.counters, key)
    join(me, serial, needs, blocking, order, key)
  end
  if blocking or needs.queue then
    queued[#queued + 1] = serial
    queued[#queued + 1] = order
  end
  if priority ~= own_priority then
    demoted[#demoted + 1] = serial
    demoted[#demoted + 1] = priority
  end
end

-- Take tickets of an owner out of the queue: SERIALS has a list of them for each of their lanes. Returns the counters
-- where these were parked: settle them, for what was kept there is free.
local function withdraw(owner, serials)
  local parked_at = {}
  for lane, in_lane in pairs(serials) do
    local needs, tickets = needs_of(lane), {}
    for i, serial in ipairs(in_lane) do
      tickets[i] = owner .. ':' .. serial
    end
    if turns then
      for i, serial in ipairs(in_lane) do
        local _, key = lane_in(redis.call('HGET', TICKETS .. owner, serial))
        if key ~= '' then
          turns.give_back(needs.counters, tonumber(redis.call('ZSCORE', LANE .. lane, tickets[i])), key)
        end
      end
    end
    in_parts('HDEL', TICKETS .. owner, in_lane)
    in_parts('ZREM', LANE .. lane, tickets)
    leave(needs, #tickets)
    local at = redis.call('HGET', LANES, lane)
    park_by_head(needs, at)
    parked_at[#parked_at + 1] = at
  end
  return parked_at
end

-- An admitted ticket has nothing any more. Returns what to settle.
local function give_back(owner, serial, place)
  local lane, worker = lane_in(place)
  local needs, freed = needs_of(lane), nil
  redis.call('HDEL', TICKETS .. owner, serial)
  give_back_slots(needs)
  add(COUNTS, 'held:' .. owner, -1)
  if worker == '' then
    return needs.counters
  end
  freed = workers.free(worker, { owner .. ':' .. serial })
  append(freed, needs.limits)
  return freed
end

local function release(owner, serial)
  local place = redis.call('HGET', TICKETS .. owner, serial)
  if not place then
    return
  end
  if string.sub(place, 1, 1) == '-' then
    local parked_at = withdraw(owner, { [lane_in(place)] = { serial } })
    if keeps_room(parked_at[1]) then
      settle(parked_at)
    end
    return
  end
  local freed = give_back(owner, serial, place)
  add(COUNTS, 'released', 1)
  settle(freed)
end

-- A worker is done with orphans: a table of their lanes.
local function release_orphans(worker, orphans)
  local tickets, limits, is_freed = {}, {}, {}
  for ticket, lane in pairs(orphans) do
    tickets[#tickets + 1] = ticket
    give_back_slots(needs_of(lane))
    add(COUNTS, 'released', 1)
    for _, counter in ipairs(needs_of(lane).limits) do
      if not is_freed[counter] then
        is_freed[counter] = true
        limits[#limits + 1] = counter
      end
    end
  end
  if tickets[1] then
    local freed = workers.free(worker, tickets)
    append(freed, limits)
    settle(freed)
  end
end

-- What an owner has, of the serials that a function picks: a list of those that wait for each of their lanes, and the
-- places of those that hold slots.
local function places_of(owner, picks)
  local places = redis.call('HGETALL', TICKETS .. owner)
  local waiting, holding = {}, {}
  for i = 1, #places, 2 do
    local serial, place = places[i], places[i + 1]
    if picks(serial) then
      local lane = lane_in(place)
      if string.sub(place, 1, 1) == '+' then
        holding[serial] = place
      else
        local in_lane = waiting[lane] or {}
        in_lane[#in_lane + 1] = serial
        waiting[lane] = in_lane
      end
    end
  end
  return waiting, holding
end

-- Owners -----------------------------------------------------------------------------------------------------------

-- An owner's lease has ended, at a time DEATHS[owner]. First the places of all of them go, so that no slot freed here is
-- given to one of them; then their slots, but for those whose reclaim delay is not over.
local function bury(owners, deaths)
  local held, freed = {}, {}
  local function all()
    return true
  end
  for _, owner in ipairs(owners) do
    if workers then
      workers.dismiss(owner)
    end
  end
  for _, owner in ipairs(owners) do
    local waiting, holding = places_of(owner, all)
    held[owner] = holding
    append(freed, withdraw(owner, waiting))
  end
  settle(freed)
  for _, owner in ipairs(owners) do
    local death, next_time, last_time = deaths[owner], nil, nil
    for serial, place in pairs(held[owner]) do
      local lane, worker = lane_in(place)
      local free = death + needs_of(lane).reclaim
      if worker ~= '' and workers.adopt(worker, owner .. ':' .. serial, lane) then
        redis.call('HDEL', TICKETS .. owner, serial)
        add(COUNTS, 'held:' .. owner, -1)
      elseif free <= now or worker ~= '' and workers.has(worker) then
        release(owner, serial) -- where the worker is alive, it does not begin it any more
      else
        next_time = math.min(next_time or free, free)
      end
    end
    local over = {}
    for ticket, lane in pairs(workers and workers.orphans_of(owner) or {}) do
      local free = death + needs_of(lane).reclaim
      if free <= now then
        over[ticket] = lane
      else
        next_time, last_time = math.min(next_time or free, free), math.max(last_time or free, free)
      end
    end
    release_orphans(owner, over)
    if last_time then
      workers.keep_orphans(owner, last_time - now)
    end
    redis.call('ZREM', OWNERS, owner)
    if next_time then
      redis.call('ZADD', DEAD, next_time, owner)
      set(COUNTS, 'death:' .. owner, death)
    else
      redis.call('ZREM', DEAD, owner)
      for _, field in ipairs({ 'held:', 'sequence:', 'death:' }) do
        set(COUNTS, field .. owner, 0)
      end
    end
  end
  if redis.call('ZCARD', OWNERS) == 0 and redis.call('ZCARD', DEAD) == 0 then
    if rates then
      rates.write()
    end
    redis.call('DEL', GATE, RETURNED, RATES, DUE)
    COUNTS.read, COUNTS.changed = {}, {}
    grace, graced, weighted, rates, turns, workers, waker, is_empty = 0, 0, false, nil, nil, nil, false, true
  end
end

-- Whether the first of a set of times has come.
local function is_due(key)
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return first[1] and tonumber(first[2]) <= now
end

-- Free what dead owners have held. One that sends this batch is alive: if nobody has taken it for dead so far, it has
-- all it had.
local function reap()
  if not is_due(OWNERS) and not is_due(DEAD) then
    return
  end
  local owners, deaths = {}, {}
  local expired = redis.call('ZRANGEBYSCORE', OWNERS, '-inf', '(' .. text(now), 'WITHSCORES')
  for i = 1, #expired, 2 do
    if expired[i] ~= me then
      owners[#owners + 1] = expired[i]
      deaths[expired[i]] = tonumber(expired[i + 1])
    end
  end
  for _, owner in ipairs(redis.call('ZRANGEBYSCORE', DEAD, '-inf', text(now))) do
    owners[#owners + 1] = owner
    deaths[owner] = get(COUNTS, 'death:' .. owner)
  end
  if owners[1] then
    bury(owners, deaths)
  end
end

-- Whether Redis may lack what this owner, or others, have seen of it; and whether it was away for so long that leases ran
-- out unheard. An owner that has seen nothing yet may still find that a server is another one.
local function is_in_doubt(is_owner)
  if known[1] == '' then
    return unfamiliar and epoch ~= ''
  end
  return unfamiliar
    or epoch ~= known[1]
    or count < known[2]
    or is_owner and last_sequence < known[3]
    or now - last > longest_lease / 2 and redis.call('ZCARD', OWNERS) > (is_owner and 1 or 0)
end

-- From now on, who knows another epoch has to announce.
local function new_epoch()
  local new = text(time[1] * 1000000 + time[2])
  redis.call('HSET', GATE, 'epoch', new)
  return new
end

-- The time is earlier than it was: Redis's clock was set, or this server took over from one with another. What was meant
-- by that time does not last for the difference.
local function set_back()
  local leases = redis.call('ZRANGE', OWNERS, 0, -1, 'WITHSCORES')
  for i = 1, #leases, 2 do
    redis.call('ZADD', OWNERS, math.min(tonumber(leases[i + 1]), now + longest_lease), leases[i])
  end
  local dead = redis.call('ZRANGE', DEAD, 0, -1, 'WITHSCORES')
  for i = 1, #dead, 2 do
    local death = get(COUNTS, 'death:' .. dead[i])
    if death > now then
      set(COUNTS, 'death:' .. dead[i], now)
      redis.call('ZADD', DEAD, dead[i + 1] - death + now, dead[i])
    end
  end
  if grace > now + longest_pause then
    grace = now + longest_pause
    set(COUNTS, 'grace', grace)
  end
  if graced > now then
    graced = 0
    set(COUNTS, 'graced', graced)
  end
  if rates then
    rates.set_back()
  end
end

-- Admit nobody until those who hold slots have said so. They have all the time of the grace, whatever their lease.
local function begin_grace()
  -- One that was not heard of since the last grace began was waited for then. Others have seen what is missing now.
  if epoch ~= known[1] and graced > 0 and now - graced < longest_lease then
    return
  end
  if epoch ~= '' then
    epoch = new_epoch()
  end
  grace, graced = now + longest_pause, now
  set(COUNTS, 'grace', grace)
  set(COUNTS, 'graced', graced)
  set(COUNTS, 'expected', known[4])
  redis.call('DEL', RETURNED)
  for _, owner in ipairs(redis.call('ZRANGEBYSCORE', OWNERS, '-inf', text(grace))) do
    redis.call('ZADD', OWNERS, grace, owner)
  end
  if workers then
    workers.doubt()
  end
end

local function end_grace()
  grace = 0
  set(COUNTS, 'grace', 0)
  set(COUNTS, 'expected', 0)
  redis.call('DEL', RETURNED)
  local parked_at, counters = redis.call('HVALS', LANES), {}
  local seen = {}
  for _, counter in ipairs(parked_at) do
    if not seen[counter] then
      seen[counter] = true
      counters[#counters + 1] = counter
    end
  end
  settle(counters)
end

-- Grace ends when as many owners have announced as anybody knew of, or with its time.
local function expect(owners)
  set(COUNTS, 'expected', math.max(get(COUNTS, 'expected'), owners))
end

local function has_returned()
  redis.call('SADD', RETURNED, me)
  return redis.call('SCARD', RETURNED) >= get(COUNTS, 'expected')
end

-- Announcements ----------------------------------------------------------------------------------------------------

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
  for _, ticket in ipairs(waiting) do
    local number = ticket[3] - ticket[4] * PRIORITY
    if ticket[7] ~= '' then
      number = number % TURN -- what is left of it behind the turn
    end
    if aging == 0 and number > get(COUNTS, 'arrival') and number < PRIORITY then
      set(COUNTS, 'arrival', number)
    end
  end
end

-- Slots of a ticket that was admitted already, be it over the limit. Returns as needs_in does.
local function hold(serial, ticket)
  local needs, raised = needs_in(ticket, 6)
  local worker = ticket[5]
  if worker ~= '' then
    local state = workers.state_of(worker, me .. ':' .. serial)
    if state and state ~= '' and state ~= 't' then -- an orphan is its front's again
      give_back_slots(needs_of(string.sub(state, 2)))
    end
  end
  take(me, serial, needs, worker, 't')
  return needs, raised
end

-- How many of the tickets that need this would have to go until no counter has more than it may.
local function count_over(held)
  local count, gone = 0, {}
  for _, needs in ipairs(held) do
    local is_over = false
    for _, counter in ipairs(needs.limits) do
      local taken = get(USED, counter) - (gone[counter] or 0)
      is_over = is_over or taken > get(SLOTS, counter) and taken > needs.weights[counter]
    end
    if is_over then
      count = count + 1
      for _, counter in ipairs(needs.limits) do
        gone[counter] = (gone[counter] or 0) + needs.weights[counter]
      end
    end
  end
  return count
end

local function announce(in_doubt)
  local from, to = announced[3], announced[4]
  local kept, held, waiting, freed = {}, {}, {}, {}
  for i = 5, #announced do
    kept[text(announced[i][1])] = true
  end
  local function is_gone(serial)
    local number = tonumber(serial)
    return from < number and number <= to and not kept[serial]
  end
  local waiting_gone, holding_gone = places_of(me, is_gone)
  append(freed, withdraw(me, waiting_gone))
  -- What holds a slot already counts before anything is admitted.
  for i = 5, #announced do
    local ticket = announced[i]
    local serial = text(ticket[1])
    if ticket[2] == 0 or ticket[2] == 3 then
      waiting[#waiting + 1] = ticket
    elseif ticket[2] == 1 or redis.call('HEXISTS', TICKETS .. me, text(ticket[3])) == 0 then
      local place = redis.call('HGET', TICKETS .. me, serial)
      if place and string.sub(place, 1, 1) == '-' then
        append(freed, withdraw(me, { [lane_in(place)] = { serial } }))
        place = nil
      end
      if not place then
        local needs, raised = hold(serial, ticket)
        held[#held + 1] = needs
        append(freed, raised)
      elseif workers then
        workers.suspect(select(2, lane_in(place)), me .. ':' .. serial, in_doubt)
      end
    end
  end
  settle(freed)
  catch_up(waiting)
  for _, ticket in ipairs(by_order(waiting)) do
    local serial = text(ticket[1])
    local place = redis.call('HGET', TICKETS .. me, serial)
    if place and string.sub(place, 1, 1) == '+' then
      local lane, worker = lane_in(place)
      tell(me, serial, needs_of(lane), worker)
      if worker ~= '' and ticket[3] == 0 then -- the reply that said its rank was lost
        append(queued, { ticket[1], next_order(ticket[4], needs_of(lane).counters, turn_key(ticket[7])) })
      end
    elseif place then
      queued[#queued + 1] = ticket[1]
      queued[#queued + 1] = tonumber(redis.call('ZSCORE', LANE .. lane_in(place), me .. ':' .. serial))
    elseif ticket[2] == 0 then
      acquire(ticket[1], ticket[4], ticket, 6, ticket[3] > 0 and ticket[3] or nil)
    end
  end
  for serial in pairs(holding_gone) do
    release(me, serial)
  end
  overshoot = count_over(held)
  if overshoot > 0 then
    add(COUNTS, 'overshoot', overshoot)
  end
end

-- Mending ----------------------------------------------------------------------------------------------------------

-- Forget all that can be found of the namespace: some of it has been deleted by somebody else, and what is left makes no
-- sense. To the owners it is a Redis that has lost its memory.
local function wipe()
  local owners, lanes, keys = { [me] = true }, {}, { OWNERS, DEAD, LANES, GATE, RETURNED, RATES, DUE, namespace .. ':workers' }
  local SERVING, AT = namespace .. ':serving:', namespace .. ':at:'
  for _, hash in ipairs({ USED, SLOTS, WAITING }) do
    keys[#keys + 1] = hash.key
  end
  for _, set_of_owners in ipairs({ OWNERS, DEAD }) do
    for _, owner in ipairs(redis.call('ZRANGE', set_of_owners, 0, -1)) do
      owners[owner] = true
    end
  end
  for _, field in ipairs(redis.call('HKEYS', GATE)) do
    local owner = string.match(field, '^sequence:(.*)$')
    if owner then
      owners[owner] = true
    end
  end
  for _, lane in ipairs(redis.call('HKEYS', LANES)) do
    lanes[lane] = true
  end
  local known = redis.call('HGETALL', namespace .. ':workers')
  for i = 1, #known, 2 do
    owners[known[i]] = true
    for queue in string.gmatch(known[i + 1], ' (%S+)') do
      keys[#keys + 1] = SERVING .. queue
    end
  end
  local had = {} -- workers that tickets have places at
  for owner in pairs(owners) do
    keys[#keys + 1] = TICKETS .. owner
    for _, place in ipairs(redis.call('HVALS', TICKETS .. owner)) do
      lanes[string.match(place, '^.([^\2\3]*)')] = true
      had[string.match(place, '\3(.*)$') or owner] = true
    end
    had[owner] = true
  end
  for worker in pairs(had) do
    keys[#keys + 1] = AT .. worker
    for _, state in ipairs(redis.call('HVALS', AT .. worker)) do
      lanes[string.match(state, '^o(.*)$') or ''] = true
    end
  end
  for lane in pairs(lanes) do
    keys[#keys + 1] = LANE .. lane
    keys[#keys + 1] = needs_of(lane).queue and SERVING .. needs_of(lane).queue
    for _, counter in ipairs(needs_of(lane).counters) do
      keys[#keys + 1] = PARKED .. counter
      keys[#keys + 1] = TURNS .. counter
    end
  end
  for i = 1, #keys, 1000 do
    redis.call('DEL', unpack(keys, i, math.min(i + 999, #keys)))
  end
end

-- Whether something is missing that is always there as long as anything is.
local function is_torn(is_owner)
  if epoch == '' then
    return redis.call('EXISTS', OWNERS, LANES, USED.key) > 0
  end
  if waker and (not rates or redis.call('EXISTS', DUE, RATES) < 2) then
    return true
  end
  if not is_owner and redis.call('EXISTS', OWNERS, DEAD) == 0 then
    return true
  end
  if get(COUNTS, 'taken') > 0 and redis.call('EXISTS', USED.key) == 0 then
    return true
  end
  local held = 0
  if announced and announced[1] then
    for _, place in ipairs(redis.call('HVALS', TICKETS .. me)) do
      if string.sub(place, 1, 1) == '+' then
        held = held + 1
      end
    end
    return held ~= get(COUNTS, 'held:' .. me)
  end
end

-- Questions --------------------------------------------------------------------------------------------------------

-- They are made once something is asked that has an answer.
local function rules_for_questions()
  -- An admitted ticket waits again, as a new one: with its old order, so that it comes before those that came after it, and
  -- nobody better is overtaken. Returns whether it does.
  local function again(serial, new, taken_too, order, priority, operation, first)
    local place = redis.call('HGET', TICKETS .. me, new)
    if place then -- that was done before
      local lane, worker = lane_in(place)
      if string.sub(place, 1, 1) == '+' then
        tell(me, new, needs_of(lane), worker)
      else
        append(queued, { new, tonumber(redis.call('ZSCORE', LANE .. lane, me .. ':' .. new)) })
      end
      return 1
    end
    local needs, freed = needs_in(operation, first)
    place = redis.call('HGET', TICKETS .. me, serial)
    if place then
      local lane, worker = lane_in(place)
      if taken_too == 0 and (worker == '' or workers.state_of(worker, me .. ':' .. serial) ~= '') then
        settle(freed)
        return 0
      end
      append(freed, give_back(me, serial, place))
      if rates then
        rates.refund(needs_of(lane))
      end
    end
    local key = turn_key(operation[first + 1])
    order = order > 0 and order or next_order(priority, needs.counters, key)
    append(freed, needs.counters)
    join(me, new, needs, needs.counters[1], order, key) -- these are all settled, so any will do
    append(queued, { new, order })
    settle(freed)
    return 1
  end

  -- Of this owner's orphans of a front, it is at work only on those whose serials an operation says.
  local function inherit(operation)
    local front, kept, over = operation[2], {}, {}
    for i = 3, #operation do
      kept[front .. ':' .. text(operation[i])] = true
    end
    for ticket, lane in pairs(workers.orphans_of(me)) do
      if string.match(ticket, '^(.*):') == front and not kept[ticket] then
        over[ticket] = lane
      end
    end
    release_orphans(me, over)
    return redis.call('ZSCORE', OWNERS, front) and 0 or 1
  end

  -- How long other owners have to live (ms).
  local function lives_of(operation)
    local lives = {}
    for i = 2, #operation do
      local lease_end = redis.call('ZSCORE', OWNERS, operation[i])
      lives[i - 1] = lease_end and math.max(1, lease_end - now) or grace > 0 and -1 or 0
    end
    return lives
  end

  -- What is said to an operation that has an answer.
  local function answer(what, operation)
    if what == 'peers' then
      return lives_of(operation)
    end
    need_workers()
    if what == 'again' then
      return again(operation[2], operation[3], operation[4], operation[5], operation[6], operation, 7)
    elseif what == 'serve' then
      settle(workers.serve(operation))
      return workers.count()
    elseif what == 'take' then
      return workers.take(operation[2] .. ':' .. text(operation[3]))
    elseif what == 'inherit' then
      return inherit(operation)
    end
    return workers.places(operation)
  end

  return answer
end

-- The batch --------------------------------------------------------------------------------------------------------

local function run()
  if sequence <= last_sequence then
    return { 'stale' }
  end
  local is_owner = redis.call('ZSCORE', OWNERS, me)
  if is_torn(is_owner) then
    wipe()
    return { 'unknown' }
  end
  if workers and last > 0 and now - last > workers.longest_silence then
    wipe()
    return { 'unknown' }
  end
  if now < last then
    set_back()
  end
  local in_doubt = is_in_doubt(is_owner)
  if in_doubt then
    begin_grace()
  end
  reap()
  if not (announced and announced[1]) and (in_doubt or not is_owner) then
    return { 'unknown' }
  end
  if epoch == '' or is_empty then
    epoch, count = new_epoch(), 0
  end
  count = count + 1
  set(COUNTS, 'count', count)
  set(COUNTS, 'last', now)
  set(COUNTS, 'lease', longest_lease)
  set(COUNTS, 'pause', longest_pause)
  set(COUNTS, 'sequence:' .. me, sequence)
  redis.call('ZADD', OWNERS, now + lease, me)
  if grace > 0 and now >= grace then
    end_grace()
  end
  if announced then
    redis.call('ZREM', DEAD, me)
    set(COUNTS, 'death:' .. me, 0)
    if grace > 0 and announced[1] then
      expect(known[4])
    end
    announce(in_doubt)
    if grace > 0 and announced[2] and known[1] ~= '' and has_returned() then
      end_grace()
    end
  elseif rates then
    settle({}) -- who is due goes first
  end
  if rest and grace == 0 then
    local counters = {}
    for counter in string.gmatch(rest, '%S+') do
      counters[#counters + 1] = counter
    end
    redis.call('HDEL', GATE, 'rest')
    rest = nil
    settle(counters)
  end
  local answer
  for _, operation in ipairs(operations) do
    local what = operation[1]
    if what == 'acquire' then
      acquire(operation[2], operation[3], operation, 4)
    elseif what == 'release' then
      release(me, operation[2])
    elseif what == 'echo' then
      admitted_elsewhere[me] = {}
    elseif what == 'quit' then
      bury({ me }, { [me] = now })
    else
      answer = answer or rules_for_questions()
      answers[#answers + 1] = answer(what, operation)
    end
  end
  return {
    'ok', now, epoch, count, admitted, full, queued,
    get(COUNTS, 'held:' .. me), get(COUNTS, 'waiting'), get(COUNTS, 'released'),
    redis.call('ZCARD', OWNERS), math.max(0, grace - now), overshoot,
  }
end

local function run_and_write()
  local reply = run()
  local wake, heir, heirs_wake = 0, nil, nil
  if rates and reply[1] ~= 'stale' then -- who is stale is not told anything
    rates.note_due()
    wake, heir, heirs_wake = rates.appoint_waker()
  end
  if workers and workers.leave_rest(rest) then
    wake = 1
  end
  if reply[1] == 'ok' then
    append(reply, { wake, rejected, demoted, rates and rates.quotas_for(me) or {}, answers, assigned[me] or {} })
  end
  for owner, serials in pairs(admitted_elsewhere) do
    published[owner] = { serials, rates and rates.quotas_for(owner) or {}, 0, serials[1] and assigned[owner] or nil }
  end
  if heir then
    published[heir] = published[heir] or { {}, {}, 0 }
    published[heir][3] = heirs_wake
  end
  forget_idle()
  if rates then
    rates.write()
  end
  for _, hash in ipairs({ USED, SLOTS, WAITING, COUNTS }) do
    write(hash)
  end
  return reply
end

return run_and_write, wipe
end -- of the decisions

local run_and_write, wipe = decisions()
local done, reply = pcall(run_and_write)
if not done then
  -- Lua itself says so where a number or a name is missing; what Redis refuses is for the caller.
  if type(reply) ~= 'string' or not (string.find(reply, 'attempt to', 1, true) or string.find(reply, 'bad argument', 1, true)) then
    error(reply, 0)
  end
  wipe()
  reply, published = { 'unknown' }, {}
end
for owner, message in pairs(published) do
  redis.call('PUBLISH', CHANNEL .. owner, cmsgpack.pack(message))
end
return cmsgpack.pack(reply)
