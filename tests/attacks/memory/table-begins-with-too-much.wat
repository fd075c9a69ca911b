;; Begins with a table of four billion elements.
;; expect: refused
;; says: one of its tables begins with 4294967295 elements

(table 4294967295 funcref)
