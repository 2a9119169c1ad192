-- Turns. A part of gate.lua, put where that says so; made once a ticket has taken turns with others.

-- Start-time fair queueing, see turns.py. All scores of a priority are in one range, in the order of the turns.
local function rules_for_turns()
  local rules = {}
  local LAST = PRIORITY / TURN - 1
  local MOST_KEYS = 1000 -- as MOST in turns.py

  -- What the order of a ticket that takes turns is made of: its priority, and its turn.
  local function parts_of(order)
    local priority = math.floor(order / PRIORITY)
    return priority, math.floor((order - priority * PRIORITY) / TURN)
  end

  -- The turn at a counter, of a priority or (with a key) of its next ticket; nil if there is none.
  local function turn_at(counter, priority, key)
    local member = key and text(priority) .. ':' .. key or text(priority)
    local score = redis.call('ZSCORE', TURNS .. counter, member)
    return score and tonumber(score) - priority * PRIORITY
  end

  local function set_turn(counter, priority, key, turn)
    local member = key and text(priority) .. ':' .. key or text(priority)
    redis.call('ZADD', TURNS .. counter, priority * PRIORITY + turn, member)
  end

  -- Where all keys come for the first time, the level does not rise: of too many, the one goes that has the lowest turn.
  local function forget_lowest(counter, priority)
    local all, first, last = TURNS .. counter, text(priority * PRIORITY), '(' .. text((priority + 1) * PRIORITY)
    if redis.call('ZCOUNT', all, first, last) > MOST_KEYS + 1 then -- one is the level
      for _, member in ipairs(redis.call('ZRANGEBYSCORE', all, first, last, 'LIMIT', 0, 2)) do
        if member ~= text(priority) then
          redis.call('ZREM', all, member)
          return
        end
      end
    end
  end

  -- The turn of a ticket that has to wait: the lowest that its counters offer.
  function rules.next(counters, priority, key)
    local lowest
    for _, counter in ipairs(counters) do
      local level = turn_at(counter, priority)
      if level then
        local turn = math.max(level, turn_at(counter, priority, key) or 0)
        lowest = math.min(lowest or turn, turn)
      end
    end
    return math.min(lowest or get(COUNTS, 'base'), LAST)
  end

  function rules.take(counters, order, key)
    local priority, turn = parts_of(order)
    for _, counter in ipairs(counters) do
      if not turn_at(counter, priority) then
        set_turn(counter, priority, nil, turn)
      end
      if (turn_at(counter, priority, key) or 0) < turn + 1 then
        set_turn(counter, priority, key, turn + 1)
        forget_lowest(counter, priority)
      end
    end
  end

  -- A ticket has had its turn: what is known of keys without a later one goes.
  function rules.serve(counters, order)
    local priority, turn = parts_of(order)
    set(COUNTS, 'base', math.max(get(COUNTS, 'base'), turn))
    for _, counter in ipairs(counters) do
      local level = turn_at(counter, priority)
      if not level or level < turn then
        level = turn
        set_turn(counter, priority, nil, level)
      end
      local first = priority * PRIORITY
      redis.call('ZREMRANGEBYSCORE', TURNS .. counter, text(first), '(' .. text(first + level))
    end
  end

  -- A ticket leaves without having had its turn: its key has it back.
  function rules.give_back(counters, order, key)
    local priority = parts_of(order)
    for _, counter in ipairs(counters) do
      local turn = turn_at(counter, priority, key)
      if turn then
        set_turn(counter, priority, key, turn - 1)
      end
    end
  end

  return rules
end
