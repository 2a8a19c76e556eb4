-- Fencing terms are counted by a cluster. A restored database comes to another one, which counts anew.
-- Empty: written before this column was here.
ALTER TABLE fences ADD COLUMN cluster text NOT NULL DEFAULT '';
-- Clusters that this database was restored from: they act here no more.
ALTER TABLE fences ADD COLUMN earlier text[] NOT NULL DEFAULT '{}';
