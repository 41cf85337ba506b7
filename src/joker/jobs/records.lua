-- The records of all jobs in Redis. Every command is one atomic change.
--
--   {joker}:job:ID       the job, packed with MessagePack
--   {joker}:key:KEY      the job id and request digest of an idempotency key
--   {joker}:waiting      sorted set of waiting jobs, by deadline
--   {joker}:running      sorted set of running jobs, by the end of the lease or the deadline
--   {joker}:workers      sorted set of live workers, by the time they expire
--   {joker}:last_told    set when a job succeeds; its TTL tells how long ago that was
--   {joker}:sweep:V      exists while the last sweep by workers of format V is recent
--   {joker}:messages:V   list of Celery messages about waiting jobs of format V
--   {joker}:server:NAME  pub/sub channel with changes of the jobs that one server watches
--
-- All keys share a hash tag, so a cluster holds them in one slot. Only Redis's clock is used, so
-- the clocks of other machines may differ. Requests, jokes and errors are JSON, which is copied and
-- concatenated but never parsed. Record fields that this version does not know are kept; records
-- of a newer format are left to newer workers. `joker.jobs.broker` prepends the constants VERSION,
-- MAX_ATTEMPTS, MESSAGES, and MESSAGE, a format string.

local WAITING, RUNNING, WORKERS = '{joker}:waiting', '{joker}:running', '{joker}:workers'
local LAST_TOLD, SWEEP = '{joker}:last_told', '{joker}:sweep:' .. VERSION
local LAST_TOLD_TTL_SECONDS = 7 * 86400

local function job_key(id) return '{joker}:job:' .. id end
local function idempotency_key(key) return '{joker}:key:' .. key end
local function format_seconds(number) return string.format('%.6f', number) end
local function to_milliseconds(seconds) return math.ceil(seconds * 1000) end

local time
local function now()
  time = time or redis.call('TIME')
  return time[1] + time[2] / 1e6
end

local function load(id)
  local packed = redis.call('GET', job_key(id))
  return packed and cmsgpack.unpack(packed)
end

local function save(id, record, ...)
  return redis.call('SET', job_key(id), cmsgpack.pack(record), ...)
end

local function is_final(record) return record.state ~= 'PENDING' and record.state ~= 'STARTED' end
local function is_ours(record) return record.v <= VERSION end

-- Return the JSON of a `joker.jobs.job.Job`.
local function to_json(id, record)
  return '{"id":"' .. id .. '","request":' .. record.request .. ',"request_id":' .. record.request_id
    .. ',"created_at":' .. format_seconds(record.created_at) .. ',"deadline_at":'
    .. format_seconds(record.deadline_at) .. ',"state":"' .. record.state .. '","attempts":'
    .. record.attempts .. ',"error":' .. record.error .. ',"ended":"' .. (record.ended or '')
    .. '"' .. (record.trace and ',"trace":"' .. record.trace .. '"' or '')
    .. ',"refused":' .. (record.refused or 'false')
    .. ',"told":[' .. table.concat(record.jokes, ',') .. ']}'
end

-- Publish a change to the servers that watch a job.
local function notify(id, record, kind, data)
  for _, server in ipairs(record.watchers or {}) do
    redis.call('PUBLISH', '{joker}:server:' .. server, id .. ' ' .. kind .. ' ' .. data)
  end
end

-- Publish the whole job to them; return its JSON.
local function notify_record(id, record)
  local json = to_json(id, record)
  notify(id, record, 'record', json)
  return json
end

-- Send the workers a message about a waiting job; it may get lost.
local function send_message(id, record)
  record.published_at = now()
  local tag = id .. format_seconds(now())
  redis.call('LPUSH', MESSAGES, string.format(MESSAGE, id, id, record.tokens or 0, tag))
end

local function finish(id, record, state, error)
  redis.call('ZREM', record.state == 'STARTED' and RUNNING or WAITING, id)
  local ttl = to_milliseconds(record.keep)
  if record.key ~= '' then redis.call('PEXPIRE', idempotency_key(record.key), ttl) end
  record.ended, record.state, record.error = record.state, state, error
  notify_record(id, record)
  -- Drop the fields that only an unfinished job needs.
  for _, field in ipairs({'lease', 'key', 'keep', 'published_at', 'watchers', 'trace', 'quiet',
    'tokens'}) do
    record[field] = nil
  end
  save(id, record, 'PX', ttl)
end

-- Fail a job that has missed its deadline; return whether it had. Jobs of newer formats are kept.
local function fail_if_late(id, record)
  if not is_ours(record) or is_final(record) or record.deadline_at > now() then return false end
  finish(id, record, 'FAILURE', '"late"')
  return true
end

local function fail_late_jobs()
  for _, key in ipairs({WAITING, RUNNING}) do
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', format_seconds(now()))) do
      local record = load(id)
      -- A Redis that is configured to evict keys may have dropped the record.
      if record then fail_if_late(id, record) else redis.call('ZREM', key, id) end
    end
  end
end

-- Return the record if the lease is still held, or nil.
local function load_leased(id, lease)
  local record = load(id)
  return record and record.state == 'STARTED' and record.lease == lease and record or nil
end

local function extend_lease(id, record, lease_seconds)
  local expires_at = math.min(now() + lease_seconds, record.deadline_at)
  redis.call('ZADD', RUNNING, format_seconds(expires_at), id)
end

-- Let a job wait for its next attempt, or fail it after the last; return whether it waits.
local function requeue(id, record)
  if record.attempts >= MAX_ATTEMPTS then
    finish(id, record, 'FAILURE', '"lost"')
    return false
  end
  redis.call('ZREM', RUNNING, id)
  redis.call('ZADD', WAITING, format_seconds(record.deadline_at), id)
  record.state, record.lease, record.jokes = 'PENDING', '', {}
  send_message(id, record)
  save(id, record)
  notify_record(id, record)
  return true
end

local function append(list, items)
  for _, item in ipairs(items) do table.insert(list, item) end
end

local commands = {}

-- Submit a job; return the outcome (new, same, full or conflict) and the job.
function commands.submit(id, server, request, request_id, key, digest, max_queue_size, deadline_seconds,
                         result_ttl_seconds, trace, tokens)
  if key ~= '' then
    local existing = redis.call('GET', idempotency_key(key))
    if existing then
      local existing_id, existing_digest = string.match(existing, '^(%S+) (%S+)$')
      local record = load(existing_id)
      if record then
        if existing_digest ~= digest then return {'conflict', ''} end
        fail_if_late(existing_id, record)
        return {'same', to_json(existing_id, record)}
      end
    end
  end
  max_queue_size = tonumber(max_queue_size)
  if redis.call('ZCARD', WAITING) >= max_queue_size then
    fail_late_jobs()
    -- The client retries with the same id if the answer was lost.
    local record = load(id)
    if record then return {'same', to_json(id, record)} end
    if redis.call('ZCARD', WAITING) >= max_queue_size then return {'full', ''} end
  end
  local record = {v = VERSION, request = request, request_id = request_id, state = 'PENDING',
    created_at = now(), deadline_at = now() + deadline_seconds, published_at = now(), attempts = 0,
    error = 'null', jokes = {}, lease = '', key = key, keep = tonumber(result_ttl_seconds),
    watchers = {server}, quiet = true, trace = trace ~= '' and trace or nil,
    tokens = tonumber(tokens)}
  if not save(id, record, 'NX') then return {'same', to_json(id, load(id))} end
  send_message(id, record)
  redis.call('ZADD', WAITING, format_seconds(record.deadline_at), id)
  if key ~= '' then redis.call('SET', idempotency_key(key), id .. ' ' .. digest) end
  return {'new', to_json(id, record)}
end

-- Subscribe a server to a job's changes, and to its drafts if `drafts` is 1; return the job and the
-- seconds until its deadline.
function commands.watch(id, server, drafts)
  local record = load(id)
  if not record then return false end
  if fail_if_late(id, record) or is_final(record) then
    return {to_json(id, record), '0'}
  end
  local watching = false
  for _, name in ipairs(record.watchers) do watching = watching or name == server end
  if not watching then table.insert(record.watchers, server) end
  local first_reader = drafts == '1' and record.quiet
  if first_reader then record.quiet = nil end
  if first_reader or not watching then save(id, record) end
  -- Late jobs of newer formats are not failed here: the minimum keeps servers from polling them.
  local min_seconds = is_ours(record) and 0 or 1
  return {to_json(id, record), format_seconds(math.max(record.deadline_at - now(), min_seconds))}
end

function commands.read(id)
  local record = load(id)
  if not record then return false end
  fail_if_late(id, record)
  return to_json(id, record)
end

function commands.cancel(id)
  local record = load(id)
  if not record then return false end
  if not fail_if_late(id, record) and not is_final(record) then
    finish(id, record, 'REVOKED', 'null')
  end
  return to_json(id, record)
end

function commands.deregister(worker) redis.call('ZREM', WORKERS, worker) end

-- Return the numbers of waiting jobs, running jobs and live workers, and the seconds since a job
-- last succeeded, or false.
function commands.stats()
  fail_late_jobs()
  redis.call('ZREMRANGEBYSCORE', WORKERS, '-inf', format_seconds(now()))
  local left = redis.call('PTTL', LAST_TOLD)
  return {redis.call('ZCARD', WAITING), redis.call('ZCARD', RUNNING), redis.call('ZCARD', WORKERS),
    left >= 0 and format_seconds(LAST_TOLD_TTL_SECONDS - left / 1000)}
end

-- Give a waiting job a lease; return the job, or false if it is not waiting.
function commands.claim(id, lease, lease_seconds)
  local record = load(id)
  if not record or not is_ours(record) then return false end
  if record.state == 'STARTED' and record.lease == lease then return to_json(id, record) end
  if record.state ~= 'PENDING' or fail_if_late(id, record) then return false end
  record.state, record.lease, record.attempts = 'STARTED', lease, record.attempts + 1
  save(id, record)
  redis.call('ZREM', WAITING, id)
  extend_lease(id, record, lease_seconds)
  return notify_record(id, record)
end

-- Record that a worker is alive and renew its leases, given as pairs of job id and lease; return
-- the leases that it has lost.
function commands.heartbeat(worker, lease_seconds, ...)
  redis.call('ZADD', WORKERS, format_seconds(now() + lease_seconds), worker)
  local pairs, lost = {...}, {}
  for i = 1, #pairs, 2 do
    local record = load_leased(pairs[i], pairs[i + 1])
    if record and not fail_if_late(pairs[i], record) then
      extend_lease(pairs[i], record, lease_seconds)
    else
      table.insert(lost, pairs[i + 1])
    end
  end
  return lost
end

-- The following commands are for lease holders; they return 1, or false if the lease was lost.

-- Publish a draft to the servers; return 0 if none of them reads drafts.
function commands.publish_draft(id, lease, draft)
  local record = load_leased(id, lease)
  if not record then return false end
  if record.quiet then return 0 end
  notify(id, record, 'partial', '{"attempt":' .. record.attempts .. ',"event":' .. draft .. '}')
  return 1
end

-- Add a joke, as the JSON of a `JokeEvent`, after `count` earlier ones.
function commands.add_joke(id, lease, count, joke)
  local record = load_leased(id, lease)
  if not record then return false end
  -- A worker retries if the answer was lost; the joke must not be added twice.
  if #record.jokes == tonumber(count) then
    table.insert(record.jokes, joke)
    save(id, record)
    notify_record(id, record)
  end
  return 1
end

-- Finish a job with its remaining jokes.
function commands.succeed(id, lease, ...)
  local record = load_leased(id, lease)
  if not record then return false end
  append(record.jokes, {...})
  finish(id, record, 'SUCCESS', 'null')
  redis.call('SET', LAST_TOLD, '', 'EX', LAST_TOLD_TTL_SECONDS)
  return 1
end

function commands.fail(id, lease, error, refused, ...)
  local record = load_leased(id, lease)
  if not record then return false end
  append(record.jokes, {...})
  record.refused = refused
  finish(id, record, 'FAILURE', error)
  return 1
end

-- Release a job for another attempt.
function commands.release(id, lease)
  local record = load_leased(id, lease)
  if not record then return false end
  requeue(id, record)
  return 1
end

-- Requeue jobs whose lease has expired, and republish jobs that have waited longer than a lease
-- without a message; return their ids. Only one worker per format sweeps in each interval.
function commands.sweep(interval_seconds, lease_seconds)
  if not redis.call('SET', SWEEP, '1', 'NX', 'PX', to_milliseconds(interval_seconds)) then
    return {}
  end
  fail_late_jobs()
  local ids = {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', RUNNING, '-inf', format_seconds(now()))) do
    local record = load(id)
    if is_ours(record) and requeue(id, record) then table.insert(ids, id) end
  end
  if redis.call('ZCARD', WAITING) <= redis.call('LLEN', MESSAGES) then return ids end
  local has_message = {}
  for _, message in ipairs(redis.call('LRANGE', MESSAGES, 0, -1)) do
    has_message[string.match(message, '"id":%s*"([^"]+)"') or ''] = true
  end
  for _, id in ipairs(redis.call('ZRANGE', WAITING, 0, -1)) do
    if not has_message[id] then
      local record = load(id)
      if not record then redis.call('ZREM', WAITING, id)
      elseif is_ours(record) and record.published_at + lease_seconds < now() then
        send_message(id, record)
        save(id, record)
        table.insert(ids, id)
      end
    end
  end
  return ids
end

-- Run the command named by the first argument; `joker.jobs.broker` registers this as a function.
local function run(_, arguments)
  time = nil
  return commands[arguments[1]](unpack(arguments, 2))
end
