-- What every script begins with: Redis' own clock in microseconds, numbers, and the arithmetic of the two families.
-- A script decides all of KEYS at once, or none. It never trusts a caller's clock.

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

-- tokens are doubles: a refusal must not hang on their last digit
local HAIR = 1e-6
-- how far a window may be ahead of the clock before the clock is believed: core's CLOCK_TOLERANCE
local TOLERANCE = 10000000

local algorithms = {}

local function exact(n)
  return string.format('%.17g', n)
end

-- Buckets: the tokens that are missing, and when that was so. Key: "bucket MISSING MICROSECONDS".
local bucket = {}

function bucket.none()
  return { used = 0 }
end

function bucket.read(text, a)
  local used, at = string.match(text, '^bucket (%S+) (%S+)$')
  used, at = tonumber(used), tonumber(at)
  if not used or not at then return nil end
  return { used = math.max(0, used - math.max(0, now - at) * a.tokens / a.period) }
end

function bucket.know(s, a)
  s.used = math.max(s.used, a.used)
end

function bucket.owe(s, a)
  s.used = math.max(0, s.used + a.owed + a.owed_before)
end

function bucket.add(s, tokens)
  s.used = s.used + tokens
end

function bucket.free(s, a)
  return a.capacity - s.used
end

function bucket.write(s, a)
  return 'bucket ' .. exact(s.used) .. ' ' .. exact(now), s.used * a.period / a.tokens
end

function bucket.tell(s)
  return { exact(s.used), '0', '0', '0' }
end

-- Windows, numbered from the epoch: tokens used in one and in the one before. Key: "window PERIOD NUMBER USED BEFORE".
local window = {}

function window.none(a)
  return { number = math.floor(now / a.period), used = 0, before = 0 }
end

function window.read(text, a)
  local period, number, used, before = string.match(text, '^window (%S+) (%S+) (%S+) (%S+)$')
  period, number, used, before = tonumber(period), tonumber(number), tonumber(used), tonumber(before)
  if not period or not number or not used or not before then return nil end
  local s = window.none(a)
  -- of a rule that has been changed since
  if period ~= a.period then return s end
  if number > s.number then
    if number - s.number <= math.ceil(TOLERANCE / a.period) then
      s.number = number
    else
      -- the clock was really put back: nothing that was used is given back by that
      before, used = 0, used + before
    end
  elseif number == s.number - 1 then
    before, used = used, 0
  elseif number < s.number then
    before, used = 0, 0
  end
  s.used, s.before = used, before
  return s
end

function window.know(s, a)
  if a.window >= s.number then
    s.used, s.before = math.max(s.used, a.used), math.max(s.before, a.before)
  elseif a.window == s.number - 1 then
    s.before = math.max(s.before, a.used)
  end
end

function window.owe(s, a)
  if a.window >= s.number then
    s.used, s.before = math.max(0, s.used + a.owed), math.max(0, s.before + a.owed_before)
  elseif a.window == s.number - 1 then
    s.before = math.max(0, s.before + a.owed)
  end
end

function window.add(s, tokens)
  s.used = s.used + tokens
end

function window.tell(s)
  return { '0', exact(s.number), exact(s.used), exact(s.before) }
end

function window.write(s, a, lasts)
  local text = 'window ' .. exact(a.period) .. ' ' .. exact(s.number) .. ' ' .. exact(s.used) .. ' ' .. exact(s.before)
  return text, math.max(0, (s.number + lasts) * a.period - now)
end

local function like(family, own)
  return setmetatable(own, { __index = family })
end
