/*
 * Two Meanwhile processes write to one Postgres database. README.md explains this model, and
 * what each -D name takes out. LOSSES, ROLLBACKS, CRASHES and DELETES say how often each may happen.
 */

#define PROCESSES  2
#define MAXRUNNING 1 /* max_running of the queue */

mtype:state  = { absent, queued, running, succeeded, failed, cancelled };
mtype:op     = { submit, claim, append, finish, release, sweep, cancel };
mtype:tx     = { idle, open, committing, rolledBack };

typedef Job {
	mtype:state state = absent;
	byte token;           /* of the current lease; 0 unless the job runs */
	bool again;           /* its only second attempt is used up */
	bool cancelRequested;
	bool output;          /* the current attempt has appended output */
};

/* A connection to the database, and its transaction with one batch of one op. */
typedef Session {
	mtype:tx tx = idle;
	mtype:op op = submit;
	byte job;
	byte token;
	bool admitted;        /* a claim: max_running allows it, by the memory of the process */
	bool old;             /* its process has begun another batch since */
};

/* The database. A lock has the number of the session that holds it, plus 1; 0 is free. */
Job jobs[2];
bool applied[PROCESSES];   /* the id of the process's batch is stored */
byte lock;                 /* the lock of all moves */
byte ownLock[PROCESSES];   /* the lock of the other batches of a process */
byte row[2];               /* the locks of the jobs' rows */
short unread[PROCESSES];   /* the log of moves: the sum of the rows that the process has not read */
bool gap[PROCESSES];       /* rows that the process has not read were deleted */
/* Process p works on session p. Session p + 2 is one whose connection was lost. */
Session sessions[4];

/* The memory of each process: how many jobs run. */
short runningIn[PROCESSES];

/* How often each thing may still go wrong. */
byte losses = LOSSES, rollbacks = ROLLBACKS, crashes = CRASHES, deletes = DELETES;

/* What callers were told, and what happened. Process 0 submits job 0; job 1 is there from the
   beginning. */
bool sent, refused, acknowledged;
bool cancelSent, cancelAccepted; /* of job 0 */
bool accepted[PROCESSES];        /* the op of the process's batch was not refused */
byte ends[2];                    /* of each job */
byte stored[PROCESSES];          /* how often the process's batch was stored */

#define runningJobs ((jobs[0].state == running) + (jobs[1].state == running))
#define ended(i)    (jobs[i].state == succeeded || jobs[i].state == failed || jobs[i].state == cancelled)

/* The ops. */

#ifdef NO_FENCE
#define holds(n, i) (jobs[i].state == running)
#else
#define holds(n, i) (jobs[i].state == running && jobs[i].token == sessions[n].token)
#endif
#define givesBack(n) (sessions[n].op == release || sessions[n].op == sweep)

/* endJob ends a job. */
inline endJob(i, to) {
	jobs[i].state = to;
	jobs[i].token = 0;
	jobs[i].output = false;
	ends[i]++;
	assert(ends[i] == 1) /* no job ends twice */
}

/* log adds a row to the log of moves. The process of the session has changed its memory already,
   unless it has given the session up. */
inline log(n, change) {
	unread[0] = unread[0] + (n == 0 -> 0 : change);
	unread[1] = unread[1] + (n == 1 -> 0 : change)
}

/* apply applies the op of a session to its job, and logs the move. */
inline apply(n, i) {
	ok = true;
	if
	:: sessions[n].op == submit ->
		assert(!refused); /* a refused submit is not stored afterwards */
		jobs[i].state = queued
	:: sessions[n].op == claim && jobs[i].state == queued && sessions[n].admitted ->
		jobs[i].state = running;
		jobs[i].token = sessions[n].token;
		log(n, 1)
	:: sessions[n].op == append && holds(n, i) ->
		assert(jobs[i].token == sessions[n].token); /* output is of the current lease */
		jobs[i].output = true
	:: sessions[n].op == finish && holds(n, i) ->
		assert(jobs[i].token == sessions[n].token); /* a result is of the current lease */
		if
#ifndef NO_CANCEL_RULE
		:: jobs[i].cancelRequested -> endJob(i, cancelled)
#endif
		:: else -> endJob(i, succeeded)
		fi;
		log(n, -1)
	:: givesBack(n) && holds(n, i) ->
		assert(jobs[i].token == sessions[n].token); /* only the current lease is given back */
		if
		:: jobs[i].cancelRequested -> endJob(i, cancelled)
		:: else ->
			if
			:: jobs[i].again -> endJob(i, failed)
			:: else -> jobs[i].state = queued; jobs[i].token = 0; jobs[i].output = false; jobs[i].again = true
			fi
		fi;
		log(n, -1)
	:: sessions[n].op == cancel && jobs[i].state == queued -> endJob(i, cancelled)
	:: sessions[n].op == cancel && jobs[i].state == running -> jobs[i].cancelRequested = true
	:: else -> ok = false
	fi
}

/* The database. */

inline unlock(n) {
	lock = (lock == n + 1 -> 0 : lock);
	ownLock[n % 2] = (ownLock[n % 2] == n + 1 -> 0 : ownLock[n % 2]);
	row[0] = (row[0] == n + 1 -> 0 : row[0]);
	row[1] = (row[1] == n + 1 -> 0 : row[1])
}

/* clear resets what has no meaning any more, so that spin has fewer states to visit. */
inline clear(n) {
	sessions[n].tx = idle;
	sessions[n].op = submit;
	sessions[n].job = 0;
	sessions[n].token = 0;
	sessions[n].admitted = false;
	sessions[n].old = false
}

inline commit(n) {
	apply(n, sessions[n].job);
	if
	:: sessions[n].old -> skip
	:: else ->
		applied[n % 2] = true;
		accepted[n % 2] = ok;
		stored[n % 2]++;
		assert(stored[n % 2] == 1) /* a repeated batch is stored once */
	fi;
	assert(runningJobs <= MAXRUNNING);
	unlock(n);
	ok = false
}

inline deleteRows(n) {
	unread[n] = 0;
	gap[n] = true
}

/* What the database does by itself. Transactions without a fault are committed by their process,
   in the step in which it gets the answer. */
active proctype Database() {
	bool ok;
end:
	do
	:: d_step { sessions[2].tx == committing -> commit(2); clear(2) }
	:: d_step { sessions[3].tx == committing -> commit(3); clear(3) }
	/* A timeout, a restart of the database, an administrator. */
	:: d_step { rollbacks > 0 && sessions[0].tx == committing -> rollbacks--; unlock(0); sessions[0].tx = rolledBack }
	:: d_step { rollbacks > 0 && sessions[1].tx == committing -> rollbacks--; unlock(1); sessions[1].tx = rolledBack }
	:: d_step { sessions[2].tx == committing -> unlock(2); clear(2) }
	:: d_step { sessions[3].tx == committing -> unlock(3); clear(3) }
#ifndef NO_IDLE_TIMEOUT
	/* Nobody will end these transactions. */
	:: d_step { sessions[2].tx == open -> unlock(2); clear(2) }
	:: d_step { sessions[3].tx == open -> unlock(3); clear(3) }
#endif
	/* Old rows of the log are deleted. A process that stood still has not read them. */
	:: d_step { deletes > 0 && unread[0] != 0 -> deletes--; deleteRows(0) }
	:: d_step { deletes > 0 && unread[1] != 0 -> deletes--; deleteRows(1) }
	od
}

/* The processes. */

/* load counts the running jobs in one snapshot. */
inline load() {
	runningIn[p] = runningJobs;
	unread[p] = 0;
	gap[p] = false;
	reload = false
}

/* follow brings the memory up to date. */
inline follow() {
	if
#ifndef NO_GAP_CHECK
	:: gap[p] -> load()
#endif
#ifndef NO_RELOAD
	:: reload -> load()
#endif
	:: else ->
#ifndef NO_FOLLOW
		runningIn[p] = runningIn[p] + unread[p];
#endif
		unread[p] = 0
	fi
}

/* decide changes the memory by what the batch will do. */
inline decide() {
	if
	:: sessions[p].op == claim && jobs[j].state == queued && runningIn[p] < MAXRUNNING ->
		sessions[p].admitted = true;
		runningIn[p]++
	:: (sessions[p].op == finish || givesBack(p)) && holds(p, j) -> runningIn[p]--
	:: else -> sessions[p].admitted = false
	fi
}

/* loseConnection leaves the transaction, and its locks, to the database. */
inline loseConnection(left) {
	sessions[p + 2].tx = left;
	sessions[p + 2].op = sessions[p].op;
	sessions[p + 2].job = sessions[p].job;
	sessions[p + 2].token = sessions[p].token;
	sessions[p + 2].admitted = sessions[p].admitted;
	sessions[p + 2].old = false;
	sessions[p].tx = idle;
	lock = (lock == p + 1 -> p + 3 : lock);
	ownLock[p] = (ownLock[p] == p + 1 -> p + 3 : ownLock[p]);
	row[0] = (row[0] == p + 1 -> p + 3 : row[0]);
	row[1] = (row[1] == p + 1 -> p + 3 : row[1]);
	reload = true
}

/* answer gives the answer of the batch to its caller or worker. */
inline answer() {
	if
	:: sessions[p].op == submit -> acknowledged = true
	:: sessions[p].op == claim && accepted[p] -> held = j + 1; token = sessions[p].token
	:: sessions[p].op == finish || sessions[p].op == release || sessions[p].op == append && !accepted[p] -> held = 0; token = 0
	:: sessions[p].op == cancel && accepted[p] -> cancelAccepted = true
	:: else
	fi;
	forget()
}

/* forget resets what belongs to the last batch. */
inline forget() {
	clear(p);
	applied[p] = false;
	accepted[p] = false;
	stored[p] = 0;
	unknown = false;
	sessions[p + 2].old = (sessions[p + 2].tx != idle);
	j = 0
}

#define mayLose    (losses > 0 && sessions[p + 2].tx == idle)
#define mayCrash   (crashes > 0 && sessions[p + 2].tx == idle)
#define isMove     (sessions[p].op != append)
#ifdef NO_LOCK
#define lockIsFree true
#else
#define lockIsFree (lock == 0)
#endif
#ifdef NO_OWN_LOCK
#define ownLockIsFree true
#else
#define ownLockIsFree (ownLock[p] == 0)
#endif

proctype Process(byte p) {
	byte held, token; /* the lease of the worker: job + 1, and its token */
	bool unknown;     /* it is not known whether the batch is stored */
	bool reload;      /* the memory has changes of a batch that may not be stored */
	bool ok;
	byte j;

endNext:
	/* The next batch. The engine knows counts and leases by reads without a lock, so all of this
	   may have changed when the batch has the lock. */
	atomic {
		if
		:: p == 0 && !sent -> sent = true; j = 0; sessions[p].op = submit
		:: held == 0 && jobs[0].state == queued && runningJobs < MAXRUNNING -> j = 0; sessions[p].op = claim
		:: held == 0 && jobs[1].state == queued && runningJobs < MAXRUNNING -> j = 1; sessions[p].op = claim
		:: held == 1 && !jobs[0].output -> j = 0; sessions[p].op = append
		:: held > 0 -> j = held - 1; sessions[p].op = finish
		:: held > 0 -> j = held - 1; sessions[p].op = release /* a failure that is tried again */
#ifndef NO_SWEEP
		/* The end of a lease is the subject of the other model. Here each may be over at any time. */
		:: jobs[0].state == running && jobs[0].token != token -> j = 0; sessions[p].op = sweep
		:: jobs[1].state == running && jobs[1].token != token -> j = 1; sessions[p].op = sweep
#endif
		:: acknowledged && !cancelSent -> cancelSent = true; j = 0; sessions[p].op = cancel
		:: held > 0 && jobs[held - 1].token != token -> held = 0; token = 0; goto endNext /* it reads that its lease is lost */
		:: held > 0 && mayCrash -> crashes--; goto crash
		fi;
		sessions[p].job = j;
		if
		:: sessions[p].op == claim -> sessions[p].token = 1 + p + 2 * jobs[j].again /* no other attempt has it */
		:: sessions[p].op == sweep -> sessions[p].token = jobs[j].token
		:: sessions[p].op == append || sessions[p].op == finish || sessions[p].op == release -> sessions[p].token = token
		:: else
		fi;
#ifdef EARLY_ANSWER
		acknowledged = acknowledged || sessions[p].op == submit
#endif
	}

try:
#ifdef NO_PROOF
	/* It looks for the id while the old transaction may still go on. */
	atomic { if :: unknown && applied[p] -> answer(); goto endNext :: else fi };
#endif
	/* After an unknown outcome the lock comes first: the process that has it knows that the old transaction is
	   over, and whether its id is stored. */
	atomic {
		if
		:: unknown && (isMove && lockIsFree || !isMove && ownLockIsFree) ->
			unknown = false;
#if !defined(NO_LOOKUP) && !defined(NO_PROOF)
			if
			:: applied[p] -> answer(); goto endNext
			:: else
			fi
#endif
		:: !unknown
		fi
	}
	/* The locks, and under them the log, the work and COMMIT. They are one step, because
	   nobody else can do what matters here before the locks are free. */
	atomic {
		if
		:: isMove && lockIsFree && row[j] == 0 -> lock = p + 1
		:: !isMove && ownLockIsFree && row[j] == 0 -> ownLock[p] = p + 1
		fi;
		row[j] = p + 1;
		if
		:: isMove ->
			follow();
#if !defined(NO_LOCK) && !defined(NO_FOLLOW) && !defined(NO_GAP_CHECK) && !defined(NO_RELOAD)
			/* Under the lock the memory is exact. (Where a safeguard is out, the harm must show.) */
			assert(runningIn[p] == runningJobs);
#endif
			decide()
		:: else
		fi;
		if
		:: sessions[p].tx = committing
		:: mayLose -> losses--; loseConnection(open); goto try
		:: mayCrash -> crashes--; loseConnection(open); goto crash
		fi
	}
	atomic {
		if
		:: sessions[p].tx == committing -> commit(p); answer(); goto endNext
		:: sessions[p].tx == rolledBack -> reload = true /* certainly not stored */
		:: sessions[p].tx == committing && mayLose -> losses--; loseConnection(committing); unknown = true; goto try
		:: sessions[p].tx == committing && mayCrash -> crashes--; loseConnection(committing); goto crash
		fi;
		sessions[p].tx = idle;
		if
		:: goto try
		:: sessions[p].op == submit -> refused = true; forget(); goto endNext
		fi
	}

crash:
	/* kill -9, or a machine that stands still for ever. */
	atomic {
		held = 0; token = 0; reload = true;
		forget();
		if
		:: goto endNext /* started again */
		:: goto endDead
		fi
	}
endDead:
	false
}

/* When nothing can happen any more, everything that was promised has happened. */
active proctype Outcome() {
	timeout ->
		assert(!acknowledged || ended(0)); /* an acknowledged job ends */
		assert(ended(1));
		assert(!cancelAccepted || jobs[0].state == cancelled) /* an accepted cancel ends the job */
}

init {
	atomic {
		jobs[1].state = queued;
		run Process(0);
		run Process(1)
	}
}
