-- Shared by every script of the lane: each is this text and one of the functions below, called at its end.
-- KEYS[1] names the lane; all other keys begin with it but the lists of replies and the mark of changes. One Redis
-- server, no cluster.
--
--   <lane>:request:<id>      a header and what is asked; its lifetime is the caller's patience
--   <lane>:wait:<list>       elements "<id>@<arrival>" of requests that may be computed together, oldest first
--   <lane>:lists             lists that are not empty, by the arrival of their oldest request
--   <lane>:drains            drains, and wake-ups on their way, by the end of their lease
--   <lane>:idle              drains that wait for their bell
--   <lane>:wants:<drain>     how much an idle drain takes at once: requests and bytes
--   <lane>:bell:<drain>      what an idle drain is given: a batch; or an empty element, after one that it took itself
--   <lane>:flight:<drain>    requests that a drain computes, with their arrivals
--   <lane>:holders:<model>   drains that have a model loaded, or are about to load it
--
-- A header is one letter, the list's name and the list of replies, divided by tabs and ended by a line feed:
-- w waiting, f in flight, W waiting for the second time, F in flight for the second time.
local lane = KEYS[1]
local drains, lists, idle = lane .. ':drains', lane .. ':lists', lane .. ':idle'
local clock = redis.call('TIME')
local now = clock[1] * 1000 + clock[2] / 1000
local arrival = string.format('%.3f', now)
local KEPT_MS, REPLY_MS, BELL_MS = 3600000, 60000, 60000

local function request_key(id) return lane .. ':request:' .. id end
local function wait_key(list) return lane .. ':wait:' .. list end
local function flight_key(drain) return lane .. ':flight:' .. drain end
local function wants_key(drain) return lane .. ':wants:' .. drain end
local function bell_key(drain) return lane .. ':bell:' .. drain end
local function holders_key(model) return lane .. ':holders:' .. model end
local function id_of(element) return string.match(element, '^[^@]*') end
local function arrival_of(element) return string.match(element, '@([%d.]+)$') end
local function model_of(list) return string.match(list, '^[^:]*') end

-- Letter, list and replies of a request; nil when its caller is gone.
local function header(id)
  local head = redis.call('GETRANGE', request_key(id), 0, 511)
  if head == '' then return nil end
  -- Further fields, from a later version of this program, are overlooked.
  return string.match(head, '^(%a)\t([^\t\n]*)\t([^\t\n]*)[^\n]*\n')
end

local function mark(id, letter) redis.call('SETRANGE', request_key(id), 0, letter) end

-- Answers that go into one list of replies travel together: each is its id, a tab, its length, a line feed, and itself.
local function reply(told)
  for replies, answers in pairs(told) do
    redis.call('RPUSH', replies, table.concat(answers))
    redis.call('PEXPIRE', replies, REPLY_MS)
  end
end

local function note_reply(told, id, replies, answer)
  redis.call('DEL', request_key(id))
  local answers = told[replies]
  if not answers then
    answers = {}
    told[replies] = answers
  end
  answers[#answers + 1] = id .. '\t' .. #answer .. '\n'
  answers[#answers + 1] = answer
end

-- Put the arrival of its oldest request beside a list, or forget the list when it is empty.
local function note_oldest(list)
  local first = redis.call('LINDEX', wait_key(list), 0)
  if first then
    redis.call('ZADD', lists, arrival_of(first), list)
    redis.call('PEXPIRE', lists, KEPT_MS)
  else
    redis.call('ZREM', lists, list)
  end
end

-- What a drain took and did not answer waits again, once, before all others; the second time its caller is told.
local function put_back(drain)
  local flight, again, told = redis.call('HGETALL', flight_key(drain)), {}, {}
  for place = 1, #flight, 2 do
    local id = flight[place]
    local letter, list, replies = header(id)
    if letter == 'f' then
      again[#again + 1] = {id = id, list = list, arrival = flight[place + 1], place = place}
    elseif letter == 'F' then
      note_reply(told, id, replies, 'lost')
    end
  end
  reply(told)
  -- The newest first, because each is put before the one before it.
  table.sort(again, function(one, other)
    local later = tonumber(one.arrival) - tonumber(other.arrival)
    return later > 0 or later == 0 and one.place > other.place
  end)
  for _, each in ipairs(again) do
    mark(each.id, 'W')
    redis.call('LPUSH', wait_key(each.list), each.id .. '@' .. each.arrival)
    redis.call('PEXPIRE', wait_key(each.list), KEPT_MS)
    note_oldest(each.list)
  end
  redis.call('DEL', flight_key(drain))
end

local function recover()
  for _, drain in ipairs(redis.call('ZRANGEBYSCORE', drains, '-inf', now)) do
    redis.call('ZREM', drains, drain)
    redis.call('ZREM', idle, drain)
    put_back(drain)
    redis.call('DEL', bell_key(drain), wants_key(drain))
  end
end

local function ring(drain, given)
  redis.call('RPUSH', bell_key(drain), given)
  redis.call('PEXPIRE', bell_key(drain), BELL_MS)
end

local function hold(model, drain)
  redis.call('ZADD', holders_key(model), now, drain)
  redis.call('PEXPIRE', holders_key(model), KEPT_MS)
end

-- Up to `most` requests of a list, together at most `bytes`; one that was lost before stands first, and comes alone.
-- Three elements each: id, milliseconds waited, and what is asked. Also returns what closed the batch.
local function pop(list, drain, most, bytes)
  local key, looked, size, batch, closed = wait_key(list), 0, 0, {}, 'requests'
  while #batch < 3 * most and looked < 1000 do
    local element = redis.call('LINDEX', key, 0)
    if not element then
      closed = 'empty'
      break
    end
    looked = looked + 1
    local id = id_of(element)
    local value = redis.call('GET', request_key(id))
    local letter = value and string.sub(value, 1, 1)
    if letter == 'w' or letter == 'W' then
      local asked = string.sub(value, string.find(value, '\n', 1, true) + 1)
      size = size + #asked
      if #batch > 0 and size > bytes then
        closed = 'bytes'
        break
      end
      mark(id, letter == 'w' and 'f' or 'F')
      redis.call('HSET', flight_key(drain), id, arrival_of(element))
      batch[#batch + 1] = id
      batch[#batch + 1] = string.format('%.3f', now - arrival_of(element))
      batch[#batch + 1] = asked
    end
    redis.call('LPOP', key)
    if letter == 'W' then
      closed = 'repeated'
      break
    end
  end
  if #batch > 0 then
    redis.call('PEXPIRE', flight_key(drain), KEPT_MS)
    hold(model_of(list), drain)
  end
  note_oldest(list)
  return batch, closed
end

-- Give an idle drain a batch of a list, in one text: the list's name, how many are left there and what closed the batch,
-- then each request, a line and what is asked. Returns whether there was one: the callers of all may be gone.
local function hand(drain, list)
  local most, bytes = string.match(redis.call('GET', wants_key(drain)) or '1 1', '^(%d+) (%d+)$')
  local batch, closed = pop(list, drain, tonumber(most), tonumber(bytes))
  if #batch == 0 then return false end
  redis.call('ZREM', idle, drain)
  local given = {list .. '\t' .. redis.call('LLEN', wait_key(list)) .. '\t' .. closed .. '\n'}
  for place = 1, #batch, 3 do
    given[#given + 1] = batch[place] .. '\t' .. batch[place + 1] .. '\t' .. #batch[place + 2] .. '\n'
    given[#given + 1] = batch[place + 2]
  end
  ring(drain, table.concat(given))
  return true
end

-- Have a drain take a list: one that holds the model, else, when none does or the oldest request waits longer than
-- `spread_ms`, any idle one. Returns 1 when a worker must be woken for the wake-up `wake`, which gets a lease.
local function rouse(list, wake, wake_ms, workers, spread_ms)
  local model = model_of(list)
  local holders = holders_key(model)
  local busy = false
  for _, drain in ipairs(redis.call('ZRANGE', holders, 0, -1)) do
    if not redis.call('ZSCORE', drains, drain) then
      redis.call('ZREM', holders, drain)
    elseif redis.call('ZSCORE', idle, drain) then
      hand(drain, list)
      return 0
    else
      busy = true
    end
  end
  if busy and now - tonumber(redis.call('ZSCORE', lists, list) or now) < spread_ms then return 0 end
  local free = redis.call('ZRANGE', idle, 0, 0)[1]
  if free then
    hand(free, list)
    return 0
  end
  if redis.call('ZCARD', drains) >= workers then return 0 end
  redis.call('ZADD', drains, now + wake_ms, wake)
  redis.call('PEXPIRE', drains, KEPT_MS)
  -- It is about to load the model: no other drain need come for the next request.
  hold(model, wake)
  return 1
end

-- Drop up to `most` of the oldest requests of a list, as long as their callers are gone.
local function drop_gone(list, most)
  local key = wait_key(list)
  for _ = 1, most do
    local element = redis.call('LINDEX', key, 0)
    if not element or redis.call('EXISTS', request_key(id_of(element))) == 1 then break end
    redis.call('LPOP', key)
  end
  note_oldest(list)
end

-- ARGV: lease of a wake-up, workers, spread_ms, most waiting, then for each request its id, list, replies, milliseconds
-- to live, wake-up, '=' and the mark of changes at which it was made up or '', and what is asked.
-- Returns for each request 0, 1 when a worker must be woken, -1 when too many wait, -2 when something changed since.
local function append()
  local wake_ms, workers, spread_ms, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
  recover()
  local current, sent, touched = '=' .. (redis.call('GET', 'changes') or ''), {}, {}
  for place = 5, #ARGV, 7 do
    local id, list, replies, mark = ARGV[place], ARGV[place + 1], ARGV[place + 2], ARGV[place + 5]
    local key = wait_key(list)
    if redis.call('LLEN', key) >= limit then drop_gone(list, 1000) end
    local length = redis.call('LLEN', key)
    if mark ~= '' and mark ~= current then
      sent[#sent + 1] = -2
    elseif length >= limit then
      sent[#sent + 1] = -1
    else
      local content = 'w\t' .. list .. '\t' .. replies .. '\n' .. ARGV[place + 6]
      redis.call('SET', request_key(id), content, 'PX', ARGV[place + 3])
      redis.call('RPUSH', key, id .. '@' .. arrival)
      if length == 0 then note_oldest(list) end
      redis.call('PEXPIRE', key, KEPT_MS)
      sent[#sent + 1] = 0
      touched[#touched + 1] = {list = list, wake = ARGV[place + 4], place = #sent}
    end
  end
  -- After all have come, so that an idle drain is given them together.
  for _, each in ipairs(touched) do
    if redis.call('EXISTS', wait_key(each.list)) == 1 then
      sent[each.place] = rouse(each.list, each.wake, wake_ms, workers, spread_ms)
    end
  end
  return sent
end

-- ARGV: id, wake-up, its lease, workers, spread_ms.
-- Returns 0, 1 when a worker must be woken, -1 when the request is not known (any more).
local function nudge()
  recover()
  local letter, list = header(ARGV[1])
  if not letter then return -1 end
  if letter == 'f' or letter == 'F' then return 0 end
  -- A Redis that is short of memory may have given up any key: what no drain would find must be appended again.
  if redis.call('EXISTS', wait_key(list)) == 0 then
    redis.call('DEL', request_key(ARGV[1]))
    return -1
  end
  note_oldest(list)
  return rouse(list, ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]))
end

-- Which list to serve: the oldest of a model that is loaded, unless another waits longer than `patience_ms`.
local function choose(drain, patience_ms)
  local found = redis.call('ZRANGE', lists, 0, 63, 'WITHSCORES')
  if #found == 0 then return nil end
  if now - tonumber(found[2]) <= patience_ms then
    for place = 1, #found, 2 do
      if redis.call('ZSCORE', holders_key(model_of(found[place])), drain) then return found[place] end
    end
  end
  return found[1]
end

-- Hand on the answers that stand in ARGV from `place` on, each after its id.
local function answer(place)
  local told = {}
  while ARGV[place] do
    local id = ARGV[place]
    local letter, _, replies = header(id)
    if letter then note_reply(told, id, replies, ARGV[place + 1]) end
    place = place + 2
  end
  reply(told)
end

-- ARGV: drain, its lease, most requests, most bytes, patience_ms, the wake-up it came for or '', then answers.
-- Returns how many requests are left in the list, its name, what closed the batch, then id, milliseconds waited and
-- request of each that is taken, and rings the bell with nothing; an empty array when nothing waits: the bell rings with
-- what is given later.
local function turn()
  local drain, most, bytes = ARGV[1], math.max(1, tonumber(ARGV[3])), tonumber(ARGV[4])
  answer(7)
  if ARGV[6] ~= '' then redis.call('ZREM', drains, ARGV[6]) end
  redis.call('ZADD', drains, now + tonumber(ARGV[2]), drain)
  redis.call('PEXPIRE', drains, KEPT_MS)
  recover()
  -- It was given something a moment ago, which it is about to find.
  if redis.call('EXISTS', bell_key(drain)) == 1 then return {} end
  -- What else it took never reached it: the answer to an earlier turn was lost on its way.
  put_back(drain)
  while true do
    local list = choose(drain, tonumber(ARGV[5]))
    if not list then break end
    local batch, closed = pop(list, drain, most, bytes)
    if #batch > 0 then
      redis.call('ZREM', idle, drain)
      ring(drain, '')
      return {redis.call('LLEN', wait_key(list)), list, closed, unpack(batch)}
    end
  end
  redis.call('ZADD', idle, now, drain)
  redis.call('PEXPIRE', idle, KEPT_MS)
  redis.call('SET', wants_key(drain), string.format('%d %d', most, bytes), 'PX', KEPT_MS)
  return {}
end

-- ARGV: a list, then answers. Returns how many wait there, -1 when any wait elsewhere.
local function give()
  answer(2)
  local waiting = redis.call('LLEN', wait_key(ARGV[1]))
  if redis.call('ZCARD', lists) > (waiting > 0 and 1 or 0) then return -1 end
  return waiting
end

-- ARGV: drain, whether it goes even though work waits, a wake-up, its lease, then answers.
-- Returns 0 when it is needed and stays, 1 when it has gone, 2 when it has and a worker must be woken in its place.
local function leave()
  local drain = ARGV[1]
  answer(5)
  if ARGV[2] ~= '1' then
    if redis.call('ZCARD', lists) > 0 or redis.call('EXISTS', bell_key(drain)) == 1 then return 0 end
  end
  redis.call('ZADD', drains, 0, drain)
  recover()
  if redis.call('ZCARD', lists) == 0 then return 1 end
  local free = redis.call('ZRANGE', idle, 0, 0)[1]
  if free then
    local list = choose(free, 0)
    if list then hand(free, list) end
  end
  if redis.call('ZCARD', drains) > 0 then return 1 end
  redis.call('ZADD', drains, now + tonumber(ARGV[4]), ARGV[3])
  redis.call('PEXPIRE', drains, KEPT_MS)
  return 2
end

-- ARGV: drain, its lease. Returns 1 while the lease was not lost.
local function renew()
  if not redis.call('ZSCORE', drains, ARGV[1]) then return 0 end
  redis.call('ZADD', drains, now + tonumber(ARGV[2]), ARGV[1])
  return 1
end
