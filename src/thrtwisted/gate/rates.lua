-- Rates. A part of gate.lua, put where that says so; made once a counter has had a rate.

-- GCRA, see meter.py: a counter has a theoretical arrival time (tat, us), at which what was used of its burst is there
-- again. Each ticket moves it on by its weight times the interval. One that lies back by more than a timer may be late
-- is as good as none.
local function rules_for_rates()
  local rules = {}
  local RATE = namespace .. ':rate:'
  local LATE = 100000 -- us by which a timer may be late
  local shown = {} -- owner -> counters of which it is told what is left

  -- Counters' rates as last said, {interval, burst, over, shown} or false; and {tat, weight last counted}. Each is read
  -- once, and written in the end.
  local SAID = { read = {}, changed = {} }
  local TATS = { read = {}, changed = {} }

  local function rate_of(counter)
    local rate = SAID.read[counter]
    if rate == nil then
      local words = redis.call('HGET', RATES, counter)
      rate = false
      if words then
        local interval, burst, over, is_shown = string.match(words, '^(%d+) (%d+) (%-?%d+) (%d)$')
        rate = { interval = tonumber(interval), burst = tonumber(burst), over = tonumber(over), words = words }
        rate.shown = is_shown == '1'
      end
      SAID.read[counter] = rate
    end
    return rate
  end

  -- Whether the rate that a ticket came with is another one.
  local function replace(counter, interval, burst, over, is_shown)
    local before = rate_of(counter)
    if interval == 0 and is_shown == 0 then
      if not before then
        return false
      end
      SAID.read[counter] = false
    else
      local words = text(interval) .. ' ' .. text(burst) .. ' ' .. text(over) .. ' ' .. text(is_shown)
      if before and before.words == words then
        return false
      end
      SAID.read[counter] = { interval = interval, burst = burst, over = over, shown = is_shown == 1, words = words }
    end
    SAID.changed[counter] = true
    return true
  end

  -- The rate of a counter, if tickets wait for it.
  local function awaited_rate(counter)
    local rate = rate_of(counter)
    return rate and rate.interval > 0 and rate.over == 0 and rate
  end

  -- A tat that Redis has evicted, as it may where memory is short: while somebody waits for it, it follows from when that
  -- one may go. Otherwise whoever comes next would go before him, and he might wait for ever.
  local function evicted_tat(counter)
    local rate = awaited_rate(counter)
    local due = rate and get(WAITING, counter) > 0 and redis.call('ZSCORE', DUE, counter)
    local lane = due and best_parked(counter)
    if not lane then
      return 0
    end
    local weight = needs_of(lane).weights[counter]
    TATS.changed[counter] = true
    return tonumber(due) + (math.max(rate.burst, weight) - weight) * rate.interval
  end

  local function tat_of(counter)
    local tat = TATS.read[counter]
    if not tat then
      local found, weight = string.match(redis.call('GET', RATE .. counter) or '', '^(%d+) (%d+)$')
      tat = { tonumber(found) or evicted_tat(counter), tonumber(weight or 1) }
      TATS.read[counter] = tat
    end
    return tat[1], tat[2]
  end

  local function set_tat(counter, tat, weight)
    TATS.read[counter] = { tat, weight }
    TATS.changed[counter] = true
  end

  -- A tat is no further ahead than the whole burst, or the ticket counted last, can have put it: else an earlier rate, or
  -- a clock that was set back, has done that.
  local function bound_tat(counter, rate)
    local tat, weight = tat_of(counter)
    local bound = instant + math.max(rate.burst, weight) * rate.interval
    if tat > bound then
      set_tat(counter, bound, weight)
    end
  end

  -- From when on a ticket may go by a rate (us).
  local function ready_at(counter, rate, weight)
    return (tat_of(counter)) - (math.max(rate.burst, weight) - weight) * rate.interval
  end

  -- One that has waited goes when a timer says so, and what that is late by is not lost.
  local function charge(counter, rate, weight, waited)
    local from = waited and instant - math.min(rate.interval, LATE) or instant
    set_tat(counter, math.max((tat_of(counter)), from) + weight * rate.interval, weight)
  end

  -- Take over the rate that a ticket came with; whether somebody may go by it who could not before.
  function rules.set(counter, interval, burst, over, is_shown)
    local is_other = replace(counter, interval, burst, over, is_shown)
    if interval > 0 then
      bound_tat(counter, rate_of(counter))
    end
    return is_other
  end

  -- The clock was set back.
  function rules.set_back()
    for _, counter in ipairs(redis.call('HKEYS', RATES)) do
      if rate_of(counter).interval > 0 then
        bound_tat(counter, rate_of(counter))
        touched[counter] = true
      end
    end
  end

  function rules.forget(counter)
    if rate_of(counter) then
      SAID.read[counter] = false
      SAID.changed[counter] = true
    end
  end

  -- Whether a ticket may go by a counter's rate.
  function rules.is_ready(counter, weight)
    local rate = awaited_rate(counter)
    return not rate or ready_at(counter, rate, weight) <= instant
  end

  -- Count an admission at the rates that tickets wait for.
  function rules.charge_admitted(needs, waited)
    for _, counter in ipairs(needs.limits) do
      local rate = awaited_rate(counter)
      if rate then
        charge(counter, rate, needs.weights[counter], waited)
      end
    end
  end

  -- One that was counted so waits again: it counts once.
  function rules.refund(needs)
    for _, counter in ipairs(needs.limits) do
      local rate = awaited_rate(counter)
      if rate then
        local tat, weight = tat_of(counter)
        set_tat(counter, math.max(0, tat - needs.weights[counter] * rate.interval), weight)
      end
    end
  end

  -- What the rates that nobody waits for say of a ticket that arrives: the us until it could go, if one rejects it; else
  -- nothing, its priority, and the counters where it counts.
  function rules.look_at(needs, priority)
    local delay, counted = nil, {}
    for _, counter in ipairs(needs.limits) do
      local rate = rate_of(counter)
      if rate and rate.interval > 0 and rate.over ~= 0 then
        local left = ready_at(counter, rate, needs.weights[counter]) - instant
        if left <= 0 then
          counted[#counted + 1] = counter
        elseif rate.over < 0 then
          delay = math.max(delay or 0, left)
        else
          priority = math.max(priority, rate.over)
        end
      end
    end
    return delay, priority, counted
  end

  -- Count a ticket that arrives, where nobody waits.
  function rules.charge_arrived(needs, counters)
    for _, counter in ipairs(counters) do
      charge(counter, rate_of(counter), needs.weights[counter], false)
    end
  end

  -- The owner of a ticket is to be told what is left of its counters.
  function rules.show(owner, needs)
    for _, counter in ipairs(needs.limits) do
      local rate = rate_of(counter)
      if rate and rate.shown then
        shown[owner] = shown[owner] or {}
        shown[owner][counter] = true
      end
    end
  end

  -- Note when those may go who lack only time.
  function rules.note_due()
    for _, hash in ipairs({ USED, SLOTS, WAITING, TATS, SAID }) do
      for counter in pairs(hash.changed) do
        touched[counter] = true
      end
    end
    for counter in pairs(touched) do
      local rate, due = awaited_rate(counter), nil
      local lane = rate and get(WAITING, counter) > 0 and best_parked(counter)
      if lane then
        local weight = needs_of(lane).weights[counter]
        local ready = ready_at(counter, rate, weight)
        due = has_room(counter, weight) and ready > instant and ready or nil
      end
      if due then
        redis.call('ZADD', DUE, due, counter)
      elseif rate or SAID.changed[counter] then
        redis.call('ZREM', DUE, counter)
      end
    end
  end

  -- See that somebody sends a batch when the first counter is due: one owner, unless it is late. Returns in how many us
  -- this owner has to, or 0; and another that has to now, and in how many us.
  function rules.appoint_waker()
    local first = grace == 0 and redis.call('ZRANGE', DUE, 0, 0, 'WITHSCORES') or {}
    if not first[1] then
      if waker then
        redis.call('HDEL', GATE, 'waker')
        set(COUNTS, 'wake', 0)
      end
      return 0
    end
    local due, wake = tonumber(first[2]), get(COUNTS, 'wake')
    if waker and waker ~= me and wake <= due and instant <= wake + LATE and redis.call('ZSCORE', OWNERS, waker) then
      return 0
    end
    -- One that says goodbye leaves it to who was heard of last.
    local heir = redis.call('ZSCORE', OWNERS, me) and me or redis.call('ZRANGE', OWNERS, -1, -1)[1]
    if not heir then
      return 0
    end
    if heir ~= waker then
      redis.call('HSET', GATE, 'waker', heir)
    end
    set(COUNTS, 'wake', due)
    if heir == me then
      return math.max(1, due - instant)
    end
    return 0, heir, math.max(1, due - instant)
  end

  -- What is left of the counters to be shown to an owner.
  function rules.quotas_for(owner)
    local quotas = {}
    for counter in pairs(shown[owner] or {}) do
      local rate = rate_of(counter)
      local tickets, full_in = -1, 0
      if rate and rate.interval > 0 then
        full_in = math.max(0, (tat_of(counter)) - instant)
        tickets = math.max(0, math.floor((rate.burst * rate.interval - full_in) / rate.interval))
      end
      append(quotas, { counter, math.max(0, get(SLOTS, counter) - get(USED, counter)), tickets, full_in })
    end
    return quotas
  end

  function rules.write()
    for counter in pairs(SAID.changed) do
      local rate = SAID.read[counter]
      if rate then
        redis.call('HSET', RATES, counter, rate.words)
      else
        redis.call('HDEL', RATES, counter)
      end
    end
    for counter in pairs(TATS.changed) do
      local tat, weight = tat_of(counter)
      local left = math.ceil((tat + LATE - instant) / 1000)
      if left > 0 then
        redis.call('SET', RATE .. counter, text(tat) .. ' ' .. text(weight), 'PX', text(left))
      else
        redis.call('DEL', RATE .. counter)
      end
    end
  end

  rules.said = SAID
  return rules
end
