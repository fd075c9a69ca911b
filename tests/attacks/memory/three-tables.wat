;; Has more tables in a module than any toolchain makes.
;; expect: refused
;; says: 3 tables, more than 2

(table 1 funcref)
(table 1 funcref)
(table 1 funcref)
