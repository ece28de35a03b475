// Package postgres keeps the jobs of any number of equal processes in a PostgreSQL database.
package postgres
