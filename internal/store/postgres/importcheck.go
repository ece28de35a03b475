package postgres

import (
	"context"
	"fmt"
	"strconv"
)

// Verify reads the tables that the import has filled, and calls found for each one whose rows are
// not those that were added. It calls reading before each table.
func (i *Import) Verify(ctx context.Context, reading func(table string), found func(defect string)) error {
	for _, t := range i.tables {
		reading(t.name)
		var stored Sum
		f := flush{w: i.w}
		f.add(&statement{"sum_" + t.name, t.sumSQL()}, func(r *record) {
			stored.Rows, stored.Bytes = r.int(), r.int()
			stored.Hash, _ = strconv.ParseUint(r.text(), 10, 64)
		})
		if err := f.run(ctx); err != nil {
			return err
		}
		if copied := i.progress.Sums[t.name]; stored != copied {
			found(fmt.Sprintf("the table %s has %d rows with %d bytes (checksum %x), and %d with %d (%x) were copied",
				t.name, stored.Rows, stored.Bytes, stored.Hash, copied.Rows, copied.Bytes, copied.Hash))
		}
	}
	return nil
}
