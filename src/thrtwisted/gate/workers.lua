-- Workers. A part of gate.lua, put where that says so; made once a ticket has needed a worker, or one has served a queue.

-- A ticket with a queue needs a place at a worker that serves it. It is given one in the step in which it is admitted: so
-- `\4` and the queue stand for a counter in its lane, and a lane is parked there while no worker has a free place. One
-- that is not connected gets no tickets, for what is sent to it may never be read.
--
-- What is kept of workers has a time to live, which is renewed when they say that they serve, with each heartbeat. So it
-- goes only when nobody is left who has said so lately: then their leases have run out long ago. Whoever is there all the
-- same says it again; and a ticket of which :at: tells nothing any more counts as taken. What is known of orphans alone
-- says that slots are taken: it stays for longer, and when that may be over, all of the namespace is forgotten.
local function rules_for_workers()
  local rules = {}
  local WORKERS, SERVING, AT = namespace .. ':workers', namespace .. ':serving:', namespace .. ':at:'
  local LIFE = math.max(4 * longest_lease, 60000) -- ms
  local ORPHANS_LIFE = math.max(LIFE, 24 * 60 * 60 * 1000)
  -- A batch gives away no more places than this: with 10000 it would keep Redis busy for longer than a timeout. Those who
  -- are left go with the next batch, for which whoever sent this one is woken.
  local MOST = 500
  local given, left = 0, {} -- places; what stands for queues where somebody is left
  local read = {} -- worker -> {concurrency, queues} or false
  local has_orphans = {} -- worker -> whether it has got some
  local connected = {} -- worker -> whether messages reach it
  local bests = {} -- queue -> the best worker, or false
  redis.call('PUBSUB', 'NUMSUB') -- whoever may not ask that is refused before anything is done, and not half way

  -- Nothing is known of workers yet. What is there all the same is of an earlier time: whoever has deleted the rest, such as
  -- an older version of this script that was at a loss, did not know of it.
  function rules.begin()
    local before = redis.call('HGETALL', WORKERS)
    for i = 1, #before, 2 do
      redis.call('DEL', AT .. before[i])
      for queue in string.gmatch(before[i + 1], ' (%S+)') do
        redis.call('DEL', SERVING .. queue)
      end
    end
    redis.call('DEL', WORKERS)
  end

  -- What a worker has said of itself; false if it is none, or dead.
  local function worker_of(name)
    local worker = read[name]
    if worker == nil then
      local words = redis.call('HGET', WORKERS, name)
      worker = false
      if words then
        local concurrency, queues = string.match(words, '^(%d+)(.*)$')
        worker = { concurrency = tonumber(concurrency), queues = {}, words = words }
        for queue in string.gmatch(queues, '%S+') do
          worker.queues[#worker.queues + 1] = queue
        end
      end
      read[name] = worker
    end
    return worker
  end

  local function is_connected(worker)
    if connected[worker] == nil then
      connected[worker] = tonumber(redis.call('PUBSUB', 'NUMSUB', CHANNEL .. worker)[2]) > 0
    end
    return connected[worker]
  end

  -- The least busy of the connected workers that have a free place for a queue; false if none has.
  local function best(queue)
    if bests[queue] == nil then
      local i, worker = 0, nil
      repeat
        worker = redis.call('ZRANGE', SERVING .. queue, i, i)[1]
        i = i + 1
      until not worker or is_connected(worker)
      bests[queue] = worker or false
    end
    return bests[queue]
  end

  -- A worker's places, or what it says of itself, have changed.
  local function rank(name)
    local worker = worker_of(name)
    if worker then
      bests = {}
      local taken = redis.call('HLEN', AT .. name)
      for _, queue in ipairs(worker.queues) do
        if taken < worker.concurrency then
          if redis.call('ZADD', SERVING .. queue, taken / worker.concurrency, name) == 1 then
            -- For less long than what is known of the worker, so that nobody is served by one that is forgotten.
            redis.call('PEXPIRE', SERVING .. queue, text(math.floor(LIFE / 2)))
          end
        else
          redis.call('ZREM', SERVING .. queue, name)
        end
      end
    end
  end

  -- What stands for a worker's queues in lanes: settle these when it has gained room.
  local function counters_of(name)
    local worker, counters = worker_of(name), {}
    for i, queue in ipairs(worker and worker.queues or {}) do
      counters[i] = '\4' .. queue
    end
    return counters
  end

  function rules.have_room(queue)
    if best(queue) and given >= MOST then
      left['\4' .. queue] = true
      return false
    end
    return best(queue) ~= false
  end

  -- See that the next batch goes on where this one has left somebody. Returns whether it has; REST is what the one before
  -- has left, if this one has not gone on there.
  function rules.leave_rest(rest)
    if not next(left) then
      return false
    end
    for counter in pairs(left) do
      rest = rest and rest .. ' ' .. counter or counter
    end
    redis.call('HSET', GATE, 'rest', rest)
    return true
  end

  -- Give a ticket its place: at the best worker, or at one that is known already.
  function rules.assign(ticket, queue, worker, state)
    if not worker then
      worker, given = best(queue), given + 1
    end
    redis.call('HSET', AT .. worker, ticket, state or '')
    if redis.call('PTTL', AT .. worker) < 0 then
      redis.call('PEXPIRE', AT .. worker, text(LIFE))
    end
    rank(worker)
    return worker
  end

  -- The places that tickets have at a worker are free. Returns what to settle.
  function rules.free(worker, tickets)
    in_parts('HDEL', AT .. worker, tickets)
    rank(worker)
    return counters_of(worker)
  end

  -- What a ticket is at a worker: nothing, if it is not there; '' assigned, 't' taken, or 'o' and the lane of an orphan.
  function rules.state_of(worker, ticket)
    return redis.call('HGET', AT .. worker, ticket)
  end

  -- The worker that a ticket was assigned to takes it. Returns 1 if it may; -1 if that cannot be told in grace.
  function rules.take(ticket)
    local state = rules.state_of(me, ticket)
    if state == '' then
      redis.call('HSET', AT .. me, ticket, 't')
    end
    if state == '' or state == 't' then
      return 1
    end
    return not state and grace > 0 and -1 or 0
  end

  -- A ticket has a place at a worker, as its front says. Nothing may be known of it any more; and in doubt Redis may have
  -- forgotten that the worker has taken it. Then it counts as taken.
  function rules.suspect(worker, ticket, in_doubt)
    local state = worker ~= '' and rules.state_of(worker, ticket)
    if worker ~= '' and (not state or in_doubt and state == '') then
      rules.assign(ticket, nil, worker, 't')
    end
  end

  -- It may have forgotten that of all that are assigned.
  function rules.doubt()
    for _, worker in ipairs(redis.call('HKEYS', WORKERS)) do
      local tickets, suspected = redis.call('HGETALL', AT .. worker), {}
      for i = 1, #tickets, 2 do
        if tickets[i + 1] == '' then
          append(suspected, { tickets[i], 't' })
        end
      end
      in_parts('HSET', AT .. worker, suspected)
    end
  end

  -- A ticket's front is dead: if a living worker has taken it, it is that one's from now on. Returns whether one has.
  function rules.adopt(worker, ticket, lane)
    local state = worker_of(worker) and rules.state_of(worker, ticket)
    if worker_of(worker) and (not state or state == 't') then
      redis.call('HSET', AT .. worker, ticket, 'o' .. lane)
      if not state then
        rank(worker)
      end
      if not has_orphans[worker] then
        has_orphans[worker] = true
        rules.keep_orphans(worker, 0)
      end
      return true
    end
  end

  -- What is known of a worker's orphans is needed for at least so long (ms).
  function rules.keep_orphans(worker, needed)
    redis.call('PEXPIRE', AT .. worker, text(needed + ORPHANS_LIFE))
  end

  -- After so long without any batch (ms), orphans may be forgotten, and nobody knows whose their slots were.
  rules.longest_silence = ORPHANS_LIFE

  -- Whether a worker is alive.
  function rules.has(worker)
    return worker_of(worker) ~= false
  end

  -- The orphans at a worker: ticket -> lane.
  function rules.orphans_of(worker)
    local tickets, orphans = redis.call('HGETALL', AT .. worker), {}
    for i = 1, #tickets, 2 do
      if string.sub(tickets[i + 1], 1, 1) == 'o' then
        orphans[tickets[i]] = string.sub(tickets[i + 1], 2)
      end
    end
    return orphans
  end

  -- This owner serves queues, as an operation says. Returns what to settle.
  function rules.serve(operation)
    local words = text(operation[2])
    for i = 3, #operation do
      words = words .. ' ' .. operation[i]
    end
    local before = worker_of(me)
    if not before or before.words ~= words then
      rules.dismiss(me)
      redis.call('HSET', WORKERS, me, words)
      read[me] = nil
    end
    rank(me)
    redis.call('PEXPIRE', WORKERS, text(LIFE))
    for i = 3, #operation do
      redis.call('PEXPIRE', SERVING .. operation[i], text(LIFE))
    end
    return counters_of(me)
  end

  -- How many tickets have a place at this owner, which is alive; and the fronts of its orphans.
  function rules.count()
    local answer, seen = { redis.call('HLEN', AT .. me) }, {}
    local orphans = rules.orphans_of(me)
    redis.call('PEXPIRE', AT .. me, text(next(orphans) and ORPHANS_LIFE or LIFE))
    for ticket in pairs(orphans) do
      local front = string.match(ticket, '^(.*):')
      if not seen[front] then
        seen[front] = true
        answer[#answer + 1] = front
      end
    end
    return answer
  end

  -- An owner is no worker any more. What has a place there keeps it.
  function rules.dismiss(name)
    local worker = worker_of(name)
    if worker then
      for _, queue in ipairs(worker.queues) do
        redis.call('ZREM', SERVING .. queue, name)
      end
      redis.call('HDEL', WORKERS, name)
      read[name], bests = false, {}
    end
  end

  -- How many places all workers have for each of the queues that an operation asks for; -1 in grace, for some may be yet
  -- to say that they serve.
  function rules.places(operation)
    if grace > 0 then
      return -1
    end
    local places = {}
    for i = 2, #operation do
      places[i - 1] = 0
    end
    for _, name in ipairs(redis.call('HKEYS', WORKERS)) do
      local worker = worker_of(name)
      local serves = {}
      for _, queue in ipairs(worker.queues) do
        serves[queue] = true
      end
      for i = 2, #operation do
        places[i - 1] = places[i - 1] + (serves[operation[i]] and worker.concurrency or 0)
      end
    end
    return places
  end

  return rules
end
