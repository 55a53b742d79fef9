//! The scripts that run inside Redis. Each is one atomic step; those that write heal keys whose type
//! is wrong, those that read report them.
//!
//! Keys: `trip:{id}` (hash: `version`, `summary`, `sum`, `closed`, `a:{transaction id}`),
//! `items:{id}` (hash: order → lines), `shopper:{id}` (hash: `trip`, `started`, `pos`, `pos_at`),
//! `heartbeat`, `home_epoch` (which home this is; 0 when there is none). Numbers that are compared are 20 digits wide, so that text order is their order.

use super::connection::Script;

/// What a script says that was given another epoch than the server's, before the server's.
pub(super) const OTHER_EPOCH: &str = "HOMEEPOCH ";

/// The server's epoch, of its key. A damaged one is none: such a home is of the past for everybody who
/// knows of a promotion.
macro_rules! epoch {
    ($key:literal) => {
        concat!(
            "local epoch = redis.pcall('GET', ",
            $key,
            ")\n",
            "if type(epoch) ~= 'string' or #epoch > 15 or not string.find(epoch, '^%d+$') then ",
            "epoch = '0' end\n"
        )
    };
}

/// A script that does nothing on a home of another epoch than the caller's. Its last key is the
/// epoch's, its last argument the caller's epoch.
macro_rules! fenced {
    ($text:literal) => {
        concat!(
            epoch!("KEYS[#KEYS]"),
            "if tonumber(epoch) ~= tonumber(ARGV[#ARGV]) then ",
            "return redis.error_reply('HOMEEPOCH ' .. epoch) end\n",
            $text
        )
    };
}

/// KEYS: shopper, heartbeat, epoch. ARGV: summary bytes, fields, approval bytes at most.
/// Gives: beat, epoch, 0 nothing | 1 found | 2 garbage, trip id, position, trip hash.
pub(super) static LOOK: Script = Script::read(concat!(
    epoch!("KEYS[3]"),
    r"
local beat = redis.pcall('GET', KEYS[2])
if type(beat) ~= 'string' or #beat > 20 then beat = '' end
local function none(state) return {beat, epoch, state, '', '', {}} end
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' then return none(0) end
if kind ~= 'hash' then return none(2) end
if redis.call('HSTRLEN', KEYS[1], 'trip') > 64 then return none(2) end
local id = redis.call('HGET', KEYS[1], 'trip')
if not id then return none(0) end
local position = ''
if redis.call('HSTRLEN', KEYS[1], 'pos') <= 64 then
  position = redis.call('HGET', KEYS[1], 'pos') or ''
end
local key = 'trip:' .. id
kind = redis.call('TYPE', key).ok
if kind == 'none' then return none(0) end
if kind ~= 'hash' then return none(2) end
if redis.call('HLEN', key) > tonumber(ARGV[2]) then return none(2) end
for _, field in ipairs(redis.call('HKEYS', key)) do
  local most = tonumber(ARGV[3])
  if field == 'summary' then most = tonumber(ARGV[1]) end
  if #field > 64 or redis.call('HSTRLEN', key, field) > most then return none(2) end
end
return {beat, epoch, 1, id, position, redis.call('HGETALL', key)}
"
));

/// KEYS: trip, items. ARGV: summary bytes, orders, bytes of an order's lines at most.
/// Gives: 0 nothing | 1 found | 2 garbage, summary, closed, items hash.
pub(super) static SHEET: Script = Script::read(fenced!(
    r"
local function none(state) return {state, '', '', {}} end
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' then return none(0) end
if kind ~= 'hash' then return none(2) end
local size = redis.call('HSTRLEN', KEYS[1], 'summary')
if size == 0 then return none(0) end
if size > tonumber(ARGV[1]) then return none(2) end
kind = redis.call('TYPE', KEYS[2]).ok
if kind ~= 'hash' and kind ~= 'none' then return none(2) end
local items = {}
if kind == 'hash' then
  if redis.call('HLEN', KEYS[2]) > tonumber(ARGV[2]) then return none(2) end
  for _, order in ipairs(redis.call('HKEYS', KEYS[2])) do
    if redis.call('HSTRLEN', KEYS[2], order) > tonumber(ARGV[3]) then return none(2) end
  end
  items = redis.call('HGETALL', KEYS[2])
end
return {1, redis.call('HGET', KEYS[1], 'summary'), redis.call('HEXISTS', KEYS[1], 'closed'), items}
"
));

/// KEYS: trip, items, shopper. ARGV: version, summary, start, trip id, over, life in ms once closed,
/// then order and lines in turn. Gives 1 when written.
///
/// `sum` is the hash of `summary`: a held summary that was damaged does not keep a good one of the
/// same version out.
pub(super) static PUT: Script = Script::write(fenced!(
    r"
local function heal(key)
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', key) end
end
local function number(text)
  return text and #text == 20 and not string.find(text, '%D')
end
heal(KEYS[1]) heal(KEYS[2]) heal(KEYS[3])
local held = redis.call('HMGET', KEYS[1], 'version', 'summary', 'sum')
local good = number(held[1]) and held[2] and held[3] == redis.sha1hex(held[2])
local written = 0
if not good or held[1] < ARGV[1] then
  redis.call('HSET', KEYS[1], 'version', ARGV[1], 'summary', ARGV[2], 'sum', redis.sha1hex(ARGV[2]))
  redis.call('DEL', KEYS[2])
  for i = 7, #ARGV - 1, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
  if ARGV[5] == '1' then redis.call('HSET', KEYS[1], 'closed', '1') end
  written = 1
end
local closed = redis.call('HEXISTS', KEYS[1], 'closed') == 1
local pointer = redis.call('HMGET', KEYS[3], 'trip', 'started')
if not number(pointer[2]) or pointer[2] <= ARGV[3] then
  redis.call('HSET', KEYS[3], 'trip', ARGV[4], 'started', ARGV[3])
  pointer[1] = ARGV[4]
end
local keys = {KEYS[1], KEYS[2]}
if pointer[1] == ARGV[4] then keys[3] = KEYS[3] end
for _, key in ipairs(keys) do
  if closed then redis.call('PEXPIRE', key, ARGV[6]) else redis.call('PERSIST', key) end
end
return written
"
));

/// KEYS: trip. ARGV: field, amount, time, fields at most, life in ms of what has no summary yet.
pub(super) static APPROVE: Script = Script::write(fenced!(
    r"
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end
local at = ARGV[3]
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held then
  local amount, since = string.match(held, '^(%d+) (%-?%d+)$')
  if amount and #amount == 20 then
    if amount <= ARGV[2] then return 0 end
    at = since
  end
elseif redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then
  return redis.error_reply('too many approvals of one trip')
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. at)
if redis.call('HEXISTS', KEYS[1], 'summary') == 0 and redis.call('PTTL', KEYS[1]) < 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
return 1
"
));

/// KEYS: shopper. ARGV: time, position, life in ms of a shopper without a trip.
pub(super) static MOVED: Script = Script::write(fenced!(
    r"
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end
local held = redis.call('HGET', KEYS[1], 'pos_at')
if held and #held == 20 and not string.find(held, '%D') and held >= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'pos_at', ARGV[1], 'pos', ARGV[2])
if redis.call('HEXISTS', KEYS[1], 'trip') == 0 then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
"
));

/// KEYS: trip, items, shopper. ARGV: trip id, life in ms. A trip not known yet is marked too, so
/// that a put that comes late does not open it again.
pub(super) static CLOSE: Script = Script::write(fenced!(
    r"
for i = 1, 3 do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[i]) end
end
redis.call('HSET', KEYS[1], 'closed', '1')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
if redis.call('HGET', KEYS[3], 'trip') == ARGV[1] then redis.call('PEXPIRE', KEYS[3], ARGV[2]) end
return 1
"
));

/// KEYS: heartbeat. ARGV: time.
pub(super) static BEAT: Script = Script::write(fenced!(
    r"
redis.call('SET', KEYS[1], ARGV[1])
return 1
"
));

/// KEYS: epoch. ARGV: the epoch of the home that this server is from now on. One of a higher epoch stays.
pub(super) static PROMOTE: Script = Script::write(concat!(
    epoch!("KEYS[1]"),
    r"
if tonumber(epoch) > tonumber(ARGV[1]) then return redis.error_reply('HOMEEPOCH ' .. epoch) end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"
));

/// KEYS: meta and stream, by shard of each block. ARGV: bound of a shard, then per block: number of
/// events, the events. Gives 0 when a shard would pass its bound: then nothing was appended.
///
/// An entry's id is the number of its last event. Numbers never fall behind the clock, so that a
/// consumer that is ahead of a server that came back empty does not pass over what comes next.
pub(super) static APPEND: Script = Script::write(
    r"
local bound = tonumber(ARGV[1])
local held = {}
for i = 1, #KEYS, 2 do
  local meta = KEYS[i]
  if not held[meta] then
    local counts = redis.call('HMGET', meta, 'appended', 'acked')
    held[meta] = tonumber(counts[1] or '0') - tonumber(counts[2] or '0')
  end
  held[meta] = held[meta] + tonumber(ARGV[i + 1])
  if held[meta] > bound then return 0 end
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
for i = 1, #KEYS, 2 do
  local count = tonumber(ARGV[i + 1])
  local last = tonumber(redis.call('HGET', KEYS[i], 'last') or '0') + count
  if last < now then last = now end
  last = string.format('%.0f', last)
  local appended = redis.call('HINCRBY', KEYS[i], 'appended', count)
  redis.call('HSET', KEYS[i], 'last', last)
  redis.call('XADD', KEYS[i + 1], last .. '-0', 'n', count, 'c', appended, 'e', ARGV[i + 2])
end
return 1
",
);

/// KEYS: meta, stream. ARGV: number, count up to it, the number after. Forgets up to that event.
pub(super) static ACK: Script = Script::write(
    r"
local held = redis.call('HMGET', KEYS[1], 'appended', 'acked', 'upto')
if tonumber(held[3] or '0') >= tonumber(ARGV[1]) then return 0 end
local count = math.min(tonumber(ARGV[2]), tonumber(held[1] or '0'))
if count > tonumber(held[2] or '0') then
  redis.call('HSET', KEYS[1], 'acked', string.format('%.0f', count))
end
redis.call('HSET', KEYS[1], 'upto', ARGV[1])
redis.call('XTRIM', KEYS[2], 'MINID', ARGV[3] .. '-0')
return 1
",
);

/// KEYS: every meta. Gives the number of events not acknowledged.
pub(super) static DEPTH: Script = Script::read(
    r"
local sum = 0
for _, meta in ipairs(KEYS) do
  local counts = redis.call('HMGET', meta, 'appended', 'acked')
  sum = sum + tonumber(counts[1] or '0') - tonumber(counts[2] or '0')
end
return sum
",
);
