;; Has more memories in a module than any toolchain makes.
;; expect: refused
;; says: 3 memories, more than 2

(memory (export "memory") 2)
(memory 2)
(memory 2)
