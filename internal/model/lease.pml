/*
 * The leases of two Meanwhile processes on one database, with time. README.md explains this model,
 * and what each -D name takes out. JUMPS, OUTAGES, CUTS, HANGS, FREEZES, DRIFTS and SETS say
 * how often each fault may happen.
 */

/* The unit of time is half a second. */
#define LEASE    60 /* a sweep may end the lease so long after its commit */
#define INTERVAL 20 /* between renewals */
#define RETRY    4  /* between a renewal that failed and the next */
#define ASK      50 /* work that was not renewed is asked to stop */
#ifdef ONE_INTERVAL
#define PATIENCE INTERVAL
#else
#define PATIENCE (2 * INTERVAL) /* how long renewals were possible before a sweep */
#endif
#ifdef NO_KILL
#define KILL (ASK + 20) /* the grace of a cancel */
#else
#define KILL 58 /* stopped work is over, whatever its grace */
#endif
#ifdef LATE_REPEAT
#define REPEAT  90 /* never beside another call */
#define TIMEOUT 20
#else
#define REPEAT  14 /* a call without an answer is repeated */
#define TIMEOUT 27 /* of a call */
#endif
#define OLD (KILL + 1) /* no time that is measured gets longer */

/* What a process has of the job. */
#define NONE      0
#define ASKED     1 /* it has sent a claim */
#define LEASED    2 /* the claim is stored, and the job is not delivered yet */
#define WAITING   3 /* the work starts after a renewal */
#define WORKING   4
#define STOPPING  5 /* the work was asked to stop */

/* A call that renews the lease. */
#define SENT    1
#define RENEWED 2 /* stored, and the answer is on its way */
#define REFUSED 3

/* The database. */
bool up = true;
bool running, ended; /* the state of the job; otherwise it is queued */
byte attempt;        /* the number of its attempts is the token of its lease */
byte left;           /* the rest of the lease, by the clock of the database */

/* The processes. */
byte work[2];      /* what the process has of the job */
byte token[2];
byte age[2];       /* since its lease was claimed or renewed, by its own clock */
byte calls[4];     /* process p has the calls 2p and 2p + 1 */
byte callAge[4];   /* since the call was sent */
byte pause[2];     /* until a renewal that failed is repeated */
byte healthy[2];   /* since the end of the last outage of the process */
bool frozen[2];
bool cut[2];       /* the process does not reach the database */
bool ahead[2];     /* its wall clock is ahead by more than a lease */

byte jumps = JUMPS, outages = OUTAGES, cuts = CUTS, hangs = HANGS, freezes = FREEZES, drifts = DRIFTS, sets = SETS;
bool disturbed;    /* a fault has happened */
bool slow[2];      /* the clock of the process stands still for the next unit of time */
byte lapsedFor;    /* how long the lease has been over while a process could sweep it */

#define live(p)      (work[p] >= WORKING && !frozen[p])
#define reaches(p)   (up && !cut[p])
#define holds(p)     (running && token[p] == attempt)
#define age1(x, d)   x = (x + (d) > OLD -> OLD : x + (d))
#define open(p)      ((calls[2*p] != 0) + (calls[2*p+1] != 0))
#define oldest(p)    (calls[2*p] != 0 -> callAge[2*p] : callAge[2*p+1])

/* What a process does at once, so that no time passes before. */
#define mustRenew(p) (!frozen[p] && work[p] >= WAITING && pause[p] == 0 && \
	(open(p) == 0 && (age[p] >= INTERVAL || work[p] == WAITING) || open(p) == 1 && oldest(p) >= REPEAT))
#define timedOut(c)  (calls[c] != 0 && callAge[c] >= TIMEOUT)
#ifdef NO_SELF_STOP
#define mustAsk(p)   false
#define mustKill(p)  false
#else
#define mustAsk(p)   (!frozen[p] && work[p] == WORKING && age[p] >= ASK)
#define mustKill(p)  (!frozen[p] && work[p] == STOPPING && age[p] >= KILL)
#endif
#ifdef OWN_CLOCK
#define lapsed(p)    (left == 0 || ahead[p])
#else
#define lapsed(p)    (left == 0) /* the database confirms it, whatever the process believes */
#endif
#ifdef NO_SWEEP
#define maySweep(p)  false
#else
#define maySweep(p)  (!frozen[p] && reaches(p) && running && lapsed(p) && healthy[p] >= PATIENCE)
#endif
#define urgent(p)    (mustRenew(p) || !frozen[p] && (timedOut(2*p) || timedOut(2*p+1)) || mustAsk(p) || mustKill(p) || maySweep(p))

inline forget(p) {
	work[p] = NONE; token[p] = 0; age[p] = 0; pause[p] = 0;
	calls[2*p] = 0; calls[2*p+1] = 0; callAge[2*p] = 0; callAge[2*p+1] = 0
}

/* begin starts work, or lets it wait for a renewal. */
inline begin(p) {
	work[p] = WORKING;
	assert(!(live(0) && live(1))) /* no two workers at once */
}

inline deliver(p) {
#ifdef FROM_DELIVERY
	age[p] = 0;
#endif
	if
#ifndef START_FIRST
	:: age[p] >= INTERVAL -> work[p] = WAITING
#endif
	:: else -> begin(p)
	fi
}

/* extend counts the lease from the moment at which its call was sent. */
inline extend(p, since) {
#ifdef FROM_ANSWER
	age[p] = 0;
#else
	age[p] = (since < age[p] -> since : age[p]);
#endif
	if
	:: work[p] == WAITING -> begin(p)
	:: else
	fi
}

/* store stores what a claim or a renewal asks for. */
inline storeClaim(p) {
	running = true; attempt++; token[p] = attempt; left = LEASE; lapsedFor = 0;
	work[p] = LEASED
}

inline storeRenewal(c, p) {
	if
	:: holds(p) -> left = LEASE; lapsedFor = 0; calls[c] = RENEWED
	:: else -> calls[c] = REFUSED
	fi
}

inline answer(c, p) {
	if
	:: calls[c] == RENEWED -> calls[c] = 0; extend(p, callAge[c]); callAge[c] = 0
	:: calls[c] == REFUSED -> forget(p) /* it learns that its lease is lost, and kills the work */
	fi
}

/* renew makes a call. It is answered at once, fails, or hangs. */
inline renew(p) {
	if
	:: !reaches(p) -> pause[p] = RETRY
	:: else ->
		c = (calls[2*p] != 0 -> 2*p+1 : 2*p);
		callAge[c] = 0;
		if
		:: storeRenewal(c, p); answer(c, p)
		:: hangs > 0 -> hangs--; disturbed = true; calls[c] = SENT
		fi
	fi
}

inline drop(c, p) {
	calls[c] = 0; callAge[c] = 0;
#ifdef LATE_REPEAT
	pause[p] = RETRY
#endif
}

inline sweep(p) {
	/* Work has stopped before its lease is taken, and nobody takes the job of a healthy worker. */
	assert(!live(0) || token[0] != attempt);
	assert(!live(1) || token[1] != attempt);
	running = false; left = 0; lapsedFor = 0;
	if
	:: token[p] == attempt && work[p] >= WAITING -> forget(p) /* its own worker */
	:: else
	fi
}

proctype Process(byte p) {
	byte c;
endLoop:
	do
	/* A claim, and its delivery, may take any time. The processes are equal, so process 0 begins. */
	:: atomic { !frozen[p] && work[p] == NONE && reaches(p) && !running && !ended && attempt < 3 && (p == 0 || attempt > 0) ->
		age[p] = 0;
		if
		:: storeClaim(p); deliver(p)
		:: hangs > 0 -> hangs--; disturbed = true; work[p] = ASKED
		fi }
	:: atomic { work[p] == ASKED && reaches(p) ->
		if
		:: !running && !ended -> storeClaim(p)
		:: else -> forget(p)
		fi }
	:: atomic { !frozen[p] && work[p] == LEASED -> deliver(p) }
	:: atomic { mustRenew(p) -> renew(p) }
	/* A call that hangs is stored later, and answered later. */
	:: atomic { calls[2*p] == SENT && reaches(p) -> storeRenewal(2*p, p) }
	:: atomic { calls[2*p+1] == SENT && reaches(p) -> storeRenewal(2*p+1, p) }
	:: atomic { !frozen[p] && calls[2*p] > SENT -> answer(2*p, p) }
	:: atomic { !frozen[p] && calls[2*p+1] > SENT -> answer(2*p+1, p) }
	:: atomic { !frozen[p] && timedOut(2*p) -> drop(2*p, p) }
	:: atomic { !frozen[p] && timedOut(2*p+1) -> drop(2*p+1, p) }
	/* The end of the work. Only the end of a current lease counts. */
	:: atomic { live(p) && reaches(p) ->
		if
		:: holds(p) -> running = false; left = 0; lapsedFor = 0; ended = true
		:: else
		fi;
		forget(p) }
	:: atomic { mustAsk(p) -> assert(disturbed); work[p] = STOPPING }
	:: atomic { !frozen[p] && work[p] == STOPPING -> forget(p) } /* it stops within its grace */
	:: atomic { mustKill(p) -> forget(p) }
	:: atomic { maySweep(p) -> sweep(p) }
	od
}

/* Time passes when everybody has done what is due. */
active proctype Clock() {
	byte p;
endLoop:
	do
	:: atomic { !urgent(0) && !urgent(1) ->
		left = (left > 0 -> left - 1 : 0);
		if
		:: running && left == 0 && (!frozen[0] && reaches(0) || !frozen[1] && reaches(1)) -> lapsedFor++
		:: else -> lapsedFor = 0
		fi;
		assert(lapsedFor <= 2 * PATIENCE + 1); /* a lapsed job is taken back */
		for (p : 0 .. 1) {
			if
			:: work[p] != NONE && !slow[p] -> age1(age[p], 1)
			:: else
			fi;
			if
			:: calls[2*p] != 0 && !slow[p] -> age1(callAge[2*p], 1)
			:: else
			fi;
			if
			:: calls[2*p+1] != 0 && !slow[p] -> age1(callAge[2*p+1], 1)
			:: else
			fi;
			pause[p] = (pause[p] > 0 -> pause[p] - 1 : 0);
			slow[p] = false;
			healthy[p] = (healthy[p] < PATIENCE -> healthy[p] + 1 : PATIENCE);
			if
#ifndef NO_OUTAGE_CHECK
			:: !reaches(p) && !frozen[p] -> healthy[p] = 0
#endif
			:: else
			fi
		};
		p = 0 }
	od
}

inline faultAt(p) {
	if
	:: freezes > 0 && !frozen[p] -> freezes--; disturbed = true; frozen[p] = true
	:: drifts > 0 && !slow[p] -> drifts--; slow[p] = true
	:: sets > 0 && !ahead[p] -> sets--; ahead[p] = true
	:: cuts > 0 && !cut[p] -> cuts--; disturbed = true; cut[p] = true
	:: cut[p] ->
		cut[p] = false;
#ifndef NO_OUTAGE_CHECK
		healthy[p] = 0
#endif
	:: frozen[p] ->
		/* The process goes on, and notices that its timers are late. */
		frozen[p] = false;
		healthy[p] = 0;
		if
#ifdef NO_THAW_CHECK
		:: work[p] == WORKING && age[p] >= ASK -> age[p] = ASK - 1
#else
		:: work[p] >= WORKING && age[p] >= KILL -> forget(p)
#endif
		:: else
		fi
	fi
}

active proctype Faults() {
endLoop:
	do
	:: atomic { jumps > 0 && running ->
		/* The clock of the database is set. Each process notices the jump before it sweeps. */
		jumps--; disturbed = true;
		if
		:: left = 0
		:: left = LEASE + 20
		fi;
		lapsedFor = 0;
#ifndef NO_JUMP_CHECK
		healthy[0] = 0; healthy[1] = 0
#endif
		}
	:: atomic { outages > 0 && up -> outages--; disturbed = true; up = false }
	:: atomic { !up ->
		up = true; lapsedFor = 0;
#ifndef NO_OUTAGE_CHECK
		healthy[0] = 0; healthy[1] = 0
#endif
		}
	:: atomic { faultAt(0) }
	:: atomic { faultAt(1) }
	od
}

init {
	atomic {
		healthy[0] = PATIENCE; healthy[1] = PATIENCE;
		run Process(0);
		run Process(1)
	}
}
